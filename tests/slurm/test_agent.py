"""The agent on a real Slurm, with a fake driver: whatever Slurm does to a job, the run ends as if it had not."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.fake_runs import FakeRun


def test_preempted_in_its_grace_it_is_queued_again_once_saved(slurm: Cluster, tmp_path: Path) -> None:
    """Where Slurm would not do that (PreemptMode=CANCEL), and before the driver has ended, which here takes minutes."""
    run = FakeRun.submit(slurm, tmp_path / "run", "--partition=cancel", driver="--teardown-s 600")
    run.await_training()
    taker = slurm.preempt_until(run.job_id, "PENDING", Restarts="1")
    run.assert_nothing_runs()
    assert run.causes[0] == "preempted, in its grace time"
    slurm.run("scancel", taker)
    run.assert_done()
    assert [line["restarts"] for line in run.records("driver_started")] == [0, 1]


def test_preempted_without_grace_slurm_queues_it_again(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", "--partition=nograce")
    run.await_training()
    slurm.run("scancel", slurm.preempt_until(run.job_id, "PENDING", Restarts="1"))
    run.assert_done()
    assert run.causes == ["requeued by Slurm"]
    assert run.records("requeue_asked") == []


def test_requeued_by_an_operator_it_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    slurm.run("scontrol", "requeue", run.job_id)
    run.await_training(attempts=2)
    run.assert_done()
    assert run.causes == ["requeued by Slurm"]
    assert slurm.job(run.job_id)["Restarts"] == "1"


def test_asked_to_stop_by_a_signal_it_saves_and_is_queued_again(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    slurm.run("scancel", "--signal=USR2", run.job_id)
    run.await_training(attempts=2)
    run.assert_done()
    assert run.causes[0] == "asked to stop by a signal"


def test_at_its_time_limit_it_is_queued_again_before_it_is_killed(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", "--signal=USR2@1", driver="--teardown-s 600")
    run.await_training()
    assert run.events("workers_ready")[0]["job_ends_at"] == ends_at(slurm, run)
    slurm.end_soon(run.job_id, within_s=1)
    run.await_training(attempts=2)
    assert run.causes[0] == "at its time limit"
    assert [line["accepted"] for line in run.records("requeue_asked")] == [True]
    assert run.records("driver_started")[1]["position"] != ""


def test_cancelled_by_its_user_it_saves_and_never_comes_back(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    slurm.run("scancel", run.job_id)
    assert run.await_end() == ["cancelled"]
    slurm.await_job(run.job_id, "CANCELLED", Restarts="0")
    assert run.records("requeue_asked") == []
    assert run.records("driver_ended")[0]["position"] != ""
    run.assert_nothing_runs()


def test_cancelled_while_a_checkpoint_is_written_for_a_requeue_it_never_comes_back(
    slurm: Cluster, tmp_path: Path
) -> None:
    may_save = tmp_path / "may-save"
    run = FakeRun.submit(slurm, tmp_path / "run", driver=f"--save-once {may_save}")
    run.await_training()
    slurm.run("scancel", "--signal=USR2", run.job_id)
    slurm.wait(lambda: run.causes, bool, "the signal")
    slurm.run("scancel", run.job_id)
    slurm.wait(lambda: len(run.causes), lambda causes: causes == 2, "the cancellation")
    may_save.touch()
    assert run.await_end() == ["cancelled"]
    slurm.await_job(run.job_id, "CANCELLED", Restarts="0")
    assert run.causes == ["asked to stop by a signal", "cancelled by its user"]


def test_a_job_that_must_not_be_requeued_ends_resumable(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", "--no-requeue")
    run.await_training()
    slurm.run("scancel", "--signal=USR2", run.job_id)
    assert run.await_end() == ["stopped"]
    assert slurm.await_job(run.job_id, "FAILED")["ExitCode"] == "3:0"
    again = FakeRun.submit(slurm, tmp_path / "run", "--no-requeue")
    again.assert_done()


def test_a_driver_that_is_killed_starts_again_in_the_same_allocation(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    os.kill(run.driver_pid, signal.SIGKILL)
    run.await_training(attempts=2)
    run.assert_done()
    assert [line["exit_code"] for line in run.records("driver_ended")] == [-9, 0]
    assert slurm.job(run.job_id)["Restarts"] == "0"


def test_three_attempts_without_progress_end_it_across_requeues(slurm: Cluster, tmp_path: Path) -> None:
    """Of a driver that is stuck: it neither trains nor stops."""
    run = FakeRun.submit(slurm, tmp_path / "run", step_s=1000)
    run.await_training()
    os.kill(run.driver_pid, signal.SIGKILL)
    run.await_training(attempts=2)
    slurm.run("scontrol", "requeue", run.job_id)
    run.await_training(attempts=3)
    os.kill(run.driver_pid, signal.SIGKILL)
    assert run.await_end() == ["gave up"]
    slurm.await_job(run.job_id, "FAILED", Restarts="1")


def test_a_driver_that_fails_ends_the_job_with_its_exit_code(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", driver="--exit-code 5")
    assert run.await_end() == ["failed"]
    assert slurm.await_job(run.job_id, "FAILED")["ExitCode"] == "5:0"


def test_after_a_power_cut_of_its_head_node_it_goes_on_elsewhere(slurm: Cluster, tmp_path: Path) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    node = slurm.nodes_of(run.job_id)[0]
    slurm.ask("cut", node)
    slurm.run("scontrol", "update", f"NodeName={node}", "State=down", "Reason=test")
    run.await_training(attempts=2)
    run.assert_done()
    assert slurm.job(run.job_id)["Restarts"] == "1"


def test_a_driver_that_lives_on_without_slurms_daemon_is_superseded(slurm: Cluster, tmp_path: Path) -> None:
    """It is ended before the next one, elsewhere, has begun; what it had not saved is trained again."""
    run = FakeRun.submit(slurm, tmp_path / "run")
    run.await_training()
    old, head = run.driver_pid, slurm.nodes_of(run.job_id)[0]
    slurm.ask("kill_slurmd", head)
    slurm.run("scontrol", "update", f"NodeName={head}", "State=down", "Reason=test")
    run.await_training(attempts=2)
    assert not Path(f"/proc/{old}").exists()
    run.assert_done()


def ends_at(slurm: Cluster, run: FakeRun) -> float:
    return datetime.fromisoformat(slurm.job(run.job_id)["EndTime"]).timestamp()

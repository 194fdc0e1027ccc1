"""The agent on a real Slurm, with a fake driver: whatever Slurm does to a job, the run ends as if it had not."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import datetime
from pathlib import Path

import pytest

from launcher.run_directory import open_run_directory
from launcher.slurm.records import SlurmPaths, append
from tests.slurm.cluster import PROGRAMS, Cluster
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


def test_cancelled_it_takes_the_whole_of_its_chain_with_it(slurm: Cluster, tmp_path: Path) -> None:
    first = FakeRun.submit(slurm, tmp_path / "run")
    third = first.follow().follow()
    first.await_training()
    slurm.run("scancel", first.job_id)
    assert slurm.await_job(third.job_id, "FAILED")["ExitCode"] == "3:0"
    assert first.await_end(agents=3) == ["cancelled"] * 3
    assert len(first.events("workers_ready")) == 1


def test_a_job_of_the_chain_that_is_cancelled_in_the_queue_ends_those_behind_it_and_not_the_one_at_work(
    slurm: Cluster, tmp_path: Path
) -> None:
    first = FakeRun.submit(slurm, tmp_path / "run", "--nodes=1")
    second = first.follow("--nodes=1")
    third = second.follow("--nodes=1")
    first.await_training()
    slurm.run("scancel", second.job_id)
    slurm.await_job(third.job_id, "FAILED")
    first.assert_done()
    assert first.await_end(agents=2) == ["cancelled", "done"]


@pytest.mark.parametrize(
    ("ending", "state", "exit_code"),
    [("cancelled", "FAILED", "3:0"), ("gave up", "FAILED", "1:0"), ("done", "COMPLETED", "0:0")],
)
def test_a_job_before_it_that_slurm_has_forgotten_is_known_from_the_records(
    slurm: Cluster, tmp_path: Path, ending: str, state: str, exit_code: str
) -> None:
    with open_run_directory(tmp_path / "run"):
        pass
    records = SlurmPaths(tmp_path / "run").attempts
    append(records, "agent_ended", job_id="999999", restarts=0, ending=ending, exit_code=int(exit_code[0]))
    run = FakeRun.submit(slurm, tmp_path / "run", agent="--after 999999")
    assert slurm.await_job(run.job_id, state)["ExitCode"] == exit_code
    assert run.await_end(agents=2) == [ending, ending]
    assert run.records("driver_started") == []


def test_a_save_that_takes_longer_than_the_grace_costs_what_is_not_saved_and_not_the_job(
    slurm: Cluster, tmp_path: Path
) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", "--partition=cancel", driver=f"--save-once {tmp_path / 'never'}")
    run.await_training()
    slurm.run("scancel", slurm.preempt_until(run.job_id, "PENDING", Restarts="1"))
    run.assert_done()
    assert "queued again, as time is up, before all is saved" in run.log


def test_a_save_that_takes_longer_than_slurm_waits_at_the_time_limit_costs_no_job_either(
    slurm: Cluster, tmp_path: Path
) -> None:
    run = FakeRun.submit(slurm, tmp_path / "run", "--signal=USR2@1", driver=f"--save-once {tmp_path / 'never'}")
    run.await_training()
    slurm.end_soon(run.job_id, within_s=1)
    run.await_training(attempts=2)
    assert "queued again, as time is up, before all is saved" in run.log


def test_a_stop_while_it_starts_up_needs_no_new_checkpoint(slurm: Cluster, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    run = FakeRun.submit(slurm, tmp_path / "run", driver=f"--ready-once {ready}")
    slurm.wait(lambda: run.records("driver_started"), bool, "a start")
    slurm.run("scancel", "--signal=USR2", run.job_id)
    slurm.await_job(run.job_id, "PENDING", Restarts="1")
    ready.touch()
    run.assert_done()


def test_a_controller_that_is_too_busy_to_answer_is_asked_again_until_it_does(slurm: Cluster, tmp_path: Path) -> None:
    deaf = busy_scontrol(tmp_path / "bin")
    run = FakeRun.submit(slurm, tmp_path / "run", f"--export=ALL,PATH={tmp_path / 'bin'}:{PROGRAMS}")
    run.await_training()
    for verb in ("show", "requeue"):
        (deaf / verb).touch()
    slurm.run("scancel", "--signal=USR2", run.job_id)
    slurm.wait(lambda: run.records("driver_ended"), bool, "the driver's end")
    slurm.wait(lambda: run.causes, bool, "an answer that did not come")
    (deaf / "show").unlink()
    slurm.wait(lambda: run.records("requeue_asked"), bool, "a request that was not heard")
    (deaf / "requeue").unlink()
    run.await_training(attempts=2)
    run.assert_done()
    assert run.causes[:2] == ["unknown, as Slurm does not answer", "asked to stop by a signal"]
    assert [line["accepted"] for line in run.records("requeue_asked")][-1:] == [True]


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


def test_an_agent_that_cannot_ask_slurm_ends_with_a_sentence_and_its_job_at_once(
    slurm: Cluster, tmp_path: Path
) -> None:
    deaf = busy_scontrol(tmp_path / "bin")
    (deaf / "show").touch()
    run = FakeRun.submit(slurm, tmp_path / "run", f"--export=ALL,PATH={tmp_path / 'bin'}:{PROGRAMS}")
    assert slurm.await_job(run.job_id, "FAILED")["ExitCode"] == "1:0"
    printed = (tmp_path / "run.printed.txt").read_text()
    assert "resolute: scontrol does not name the job's nodes: Socket timed out on send/recv operation" in printed
    assert "Traceback" not in printed


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


def busy_scontrol(folder: Path) -> Path:
    """Put a scontrol there that times out at those of its verbs of which a file lies in the folder that is returned."""
    deaf = folder / "deaf"
    deaf.mkdir(parents=True)
    busy = f'if [ -e "{deaf}/$1" ]; then echo "Socket timed out on send/recv operation" >&2; exit 1; fi'
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\n{busy}\nexec {shutil.which("scontrol", path=PROGRAMS)} "$@"\n')
    program.chmod(0o755)
    return deaf


def ends_at(slurm: Cluster, run: FakeRun) -> float:
    return datetime.fromisoformat(slurm.job(run.job_id)["EndTime"]).timestamp()

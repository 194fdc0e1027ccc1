"""The main job on real Ray workers: as a user runs it, with a worker that dies in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.event_log import read_events
from launcher.paths import RunPaths
from tests.integration.toy import JOB, final_sums, resolute, write_job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    run = {**JOB["run"], "mode": "ray", "workers": 2}
    return write_job(tmp_path_factory.mktemp("job"), drawn, run=run)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, job: Path) -> RunPaths:
    paths = RunPaths(tmp_path_factory.mktemp("whole") / "run")
    done = resolute("run", job, "--run-dir", paths.root)
    assert done.returncode == 0, done.stdout + done.stderr
    return paths


def test_two_ray_workers_carry_the_plan_out_and_leave_nothing_behind(uninterrupted: RunPaths) -> None:
    events = read_events(uninterrupted.events)
    trained = [event for event in events if event["event"] == "epoch_trained"]
    assert [(e["resolution"], e["samples"]) for e in trained] == [(12, 224)] * 2 + [(16, 240)] * 2 + [(24, 240)]
    assert {e["samples"] for e in events if e["event"] == "evaluated"} == {57}
    assert events[-1]["event"] == "run_finished"
    assert not uninterrupted.logs.exists()  # they are kept of failed runs alone


def test_a_worker_killed_in_phase_2_is_named_and_the_resumed_run_ends_with_identical_weights(
    job: Path, uninterrupted: RunPaths, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "run")
    killed = resolute("run", job, "--run-dir", paths.root, failpoint="worker.lease_trained:20:1")
    assert killed.returncode == 1, killed.stdout + killed.stderr
    assert "rank 1" in killed.stderr
    assert "Traceback" not in killed.stderr

    resumed = resolute("resume", paths.root)

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert final_sums(paths) == final_sums(uninterrupted)
    starts = [event for event in read_events(paths.events) if event["event"] == "attempt_started"]
    assert [start["epoch"] for start in starts] == [0, 2]

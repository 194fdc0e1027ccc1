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


def test_a_killed_worker_is_named_and_replaced_and_the_run_ends_with_identical_weights(
    job: Path, uninterrupted: RunPaths, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "run")
    # In epoch 3; from its start on, 30 leases are left, so that it happens once.
    run = resolute("run", job, "--run-dir", paths.root, failpoint="worker.lease_trained:31:1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert final_sums(paths) == final_sums(uninterrupted)
    events = read_events(paths.events)
    assert [event["epoch"] for event in events if event["event"] == "attempt_started"] == [0, 3]
    (lost,) = (event for event in events if event["event"] == "worker_lost")
    assert lost["rank"] == 1
    assert "died without a word" in lost["what"]
    assert lost["what"] in " ".join(run.stdout.split())
    assert list((paths.logs / "ray").glob("worker-*"))  # what it has printed, for want of its words

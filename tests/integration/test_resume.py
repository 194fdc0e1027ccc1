"""A run that is killed or stopped ends with the weights of one that never was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.event_log import read_events
from launcher.paths import RunPaths
from tests.integration.toy import final_sums, resolute, sha256, write_job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    return write_job(tmp_path_factory.mktemp("job"), drawn)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, job: Path) -> RunPaths:
    paths = RunPaths(tmp_path_factory.mktemp("whole") / "run")
    done = resolute("run", job, "--run-dir", paths.root)
    assert done.returncode == 0, done.stderr
    return paths


# Epochs 0 and 1 have 7 steps each, hence 7 leases; phase 2 has 15 steps an epoch.
@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param("worker.lease_trained:20", id="in the middle of phase 2"),
        pytest.param("worker.transition_agreed:2", id="right after the transition to phase 2"),
        pytest.param("checkpoint.before_rename:3", id="while saving in phase 2"),
        pytest.param("checkpoint.after_rename:2", id="right after the boundary's checkpoint came to be"),
    ],
)
def test_a_run_killed_in_phase_2_and_resumed_ends_with_identical_weights(
    failpoint: str, job: Path, uninterrupted: RunPaths, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "run")
    killed = resolute("run", job, "--run-dir", paths.root, failpoint=failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not paths.model.exists()

    resumed = resolute("resume", paths.root)

    assert resumed.returncode == 0, resumed.stderr
    assert final_sums(paths) == final_sums(uninterrupted)
    starts = [event for event in read_events(paths.events) if event["event"] == "attempt_started"]
    assert [start["checkpoint"] is None for start in starts] == [True, False]


def test_a_run_stopped_in_mid_epoch_resumes_at_the_next_sample(
    job: Path, uninterrupted: RunPaths, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "run")
    stop_soon = """
import os, signal, sys
from launcher import failpoints, worker
real, passed = failpoints.hit, 0
def stop_at_the_tenth_lease(name, *, rank=0):
    global passed
    passed += name == "worker.lease_trained"
    if name == "worker.lease_trained" and passed == 10:
        os.kill(os.getpid(), signal.SIGTERM)
    real(name, rank=rank)
worker.failpoints.hit = stop_at_the_tenth_lease
from launcher.cli.app import main
main()
"""
    command = [sys.executable, "-c", stop_soon, "run", str(job), "--run-dir", str(paths.root)]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert stopped.returncode == 3, stopped.stderr
    assert f"resolute resume {paths.root}" in stopped.stdout
    last = read_events(paths.events)[-1]
    assert (last["event"], last["epoch"], last["samples_done"]) == ("run_stopped", 1, 3 * 32)

    resumed = resolute("run", job, "--run-dir", paths.root)

    assert resumed.returncode == 0, resumed.stderr
    assert final_sums(paths) == final_sums(uninterrupted)


def test_resume_with_another_plan_is_refused_with_the_difference(uninterrupted: RunPaths) -> None:
    before = sha256(uninterrupted.plan)
    refused = resolute("resume", uninterrupted.root, "phases.1.resolution=20")
    assert refused.returncode == 2
    assert "resolution 16 -> 20" in refused.stderr
    assert "--accept-changes" in refused.stderr
    assert sha256(uninterrupted.plan) == before


def test_a_finished_run_is_not_run_again(uninterrupted: RunPaths) -> None:
    before = sha256(uninterrupted.model), len(read_events(uninterrupted.events))
    again = resolute("resume", uninterrupted.root)
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout
    assert (sha256(uninterrupted.model), len(read_events(uninterrupted.events))) == before


def test_phase_boundaries_stay_and_the_run_directory_tells_everything(uninterrupted: RunPaths) -> None:
    kept = sorted(path.name for path in uninterrupted.checkpoints.iterdir())
    assert kept == ["e00002-s000000000", "e00004-s000000000", "e00005-s000000000"]
    summary = json.loads(uninterrupted.summary.read_text())
    assert [phase["resolutions"] for phase in summary["phases"]] == [[12], [16], [24]]
    assert summary["attempts"] == 1
    transitions = [event for event in read_events(uninterrupted.events) if event["event"] == "transition_made"]
    assert [(t["resolution_before"], t["resolution_after"]) for t in transitions] == [(12, 16), (16, 24)]
    assert all(0 <= t["top1_after"] <= 1 for t in transitions)

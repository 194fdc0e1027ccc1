"""A run whose job's time will be up says so before each phase, and trains on."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.event_log import read_events
from launcher.paths import RunPaths
from launcher.slurm.time_left import VARIABLE
from tests.integration.toy import resolute, write_job


def test_phases_that_the_jobs_time_will_not_hold_are_announced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawn: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "1.0")  # Long ago.
    done = resolute("run", write_job(tmp_path, drawn), "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    told = [event for event in read_events(RunPaths(tmp_path / "run").events) if event["event"] == "phase_may_not_fit"]
    assert [(event["phase"], event["left_s"]) for event in told] == [(1, 0.0), (2, 0.0)]
    assert done.stdout.count("and the job has 0 s left: it will be stopped within the phase") == 2

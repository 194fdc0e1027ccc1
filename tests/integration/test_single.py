"""The single mode: a machine without Ray, FFCV and submitit can train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

from launcher.event_log import read_events
from launcher.paths import RunPaths
from tests.integration.toy import resolute, write_job

WITHOUT = """
import sys
for name in ("ray", "ffcv", "submitit"):
    sys.modules[name] = None  # importing it is an error from here on
from launcher.cli.app import main
main()
"""


def test_a_run_in_one_process_needs_neither_ray_nor_ffcv_nor_submitit(drawn: Path, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    command = [sys.executable, "-c", WITHOUT, "run", str(write_job(tmp_path, drawn)), "--run-dir", str(paths.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    events = read_events(paths.events)
    assert events[-1]["event"] == "run_finished"
    assert {event["samples"] for event in events if event["event"] == "evaluated"} == {57}
    with safe_open(paths.model, framework="pt") as model:
        facts = json.loads(model.metadata()["resolute"])
        assert model.get_tensor("classifier.weight").shape == (12, 16)
    assert (facts["model"], facts["num_classes"], len(facts["classes"])) == ("small_resnet", 12, 12)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_what_to_change(drawn: Path, tmp_path: Path) -> None:
    job, paths = write_job(tmp_path, drawn), RunPaths(tmp_path / "run")
    done = resolute("run", job, "phases.1.lr_scale=1e30", "norm.kind=freeze", "--run-dir", paths.root)
    assert done.returncode == 1
    assert "the loss is nan between samples" in done.stderr
    assert "of epoch 2 on rank 0" in done.stderr
    assert "frozen bear less: set norm.kind to recalibrate, or lower learning_rate.base" in done.stderr
    assert max(path.name for path in paths.checkpoints.iterdir()) == "e00002-s000000000"  # from before it
    again = resolute("run", job, "learning_rate.base=1e30", "--run-dir", tmp_path / "other")
    assert again.returncode == 1
    assert "lower learning_rate.base" in again.stderr
    assert "frozen" not in again.stderr

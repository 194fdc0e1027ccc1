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
from tests.integration.toy import write_job

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

"""A full disk at writes all over a run; at every single one by `python -m tests.faults.disk_full_engine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_whichever_write_fills_the_disk_nothing_is_lost_and_the_run_goes_on(tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("A full disk in a run was NOT tested: mounting a small one takes root")
    # Mounts of its own: whatever becomes of the engine, none is left on this machine.
    command = ["unshare", "--mount", sys.executable, "-m", "tests.faults.disk_full_engine", "--every", "11", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert done.stderr == ""
    meetings = json.loads(done.stdout)
    assert [meeting for meeting in meetings if meeting["wrong"]] == []
    assert done.returncode == 0
    assert {meeting["walk"] for meeting in meetings} == {"pages", "pages of a quota", "files"}
    assert any(meeting["saved_before"] for meeting in meetings)
    assert any(meeting["failed_at"].startswith("checkpoints/") for meeting in meetings)

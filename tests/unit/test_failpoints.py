"""Named points at which tests kill a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import failpoints

ROOT = Path(__file__).parents[2]
PASS_THRICE = """
from launcher import failpoints
for turn in range(3):
    print(turn, flush=True)
    failpoints.hit("file.after_rename")
    failpoints.hit("file.before_rename", rank=1)
"""


def run(armed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, failpoints.VARIABLE: armed}
    command = [sys.executable, "-c", PASS_THRICE]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("armed", "turns"),
    [
        ("file.before_rename:1", ["0"]),
        ("file.before_rename:2", ["0", "1"]),
        ("file.before_rename:3:1", ["0", "1", "2"]),
    ],
)
def test_an_armed_point_kills_at_its_occurrence(armed: str, turns: list[str]) -> None:
    done = run(armed)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == turns


@pytest.mark.parametrize("armed", ["", "file.before_rename:4", "file.before_rename:1:0", "checkpoint.begin:1"])
def test_other_points_ranks_and_occurrences_pass(armed: str) -> None:
    done = run(armed)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_point_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no point is named 'nowhere'; there are checkpoint\.after_rename"):
        failpoints.parse("nowhere:1")


def test_every_point_is_passed_somewhere_and_every_passed_point_is_listed() -> None:
    sources = [path.read_text() for path in (ROOT / "launcher").rglob("*.py")]
    passed = {name for text in sources for name in re.findall(r'failpoints\.hit\(\s*"([^"]+)"', text)}
    assert passed == failpoints.POINTS

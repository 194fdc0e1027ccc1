"""When a stop is known to be safely on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.slurm.stop_watch import StopWatch, is_saved


@pytest.mark.parametrize(
    ("names", "saved"),
    [
        ([], False),
        (["stop_requested"], False),
        (["checkpoint_saved"], False),
        (["checkpoint_saved", "stop_requested"], False),
        (["stop_requested", "checkpoint_saved"], True),
        (["stop_requested", "run_stopped"], True),
        (["run_finished"], True),
    ],
)
def test_a_checkpoint_counts_if_it_came_after_the_request(names: list[str], saved: bool) -> None:
    assert is_saved({"event": name} for name in names) is saved


def test_only_what_came_after_the_watch_began_is_read_and_no_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text('{"event": "stop_requested"}\n{"event": "checkpoint_saved"}\n')
    watch = StopWatch(log)
    assert not watch.is_saved()
    with log.open("a") as file:
        file.write(json.dumps({"event": "stop_requested"}) + '\n{"event": "checkpoint')
    assert not watch.is_saved()
    with log.open("a") as file:
        file.write('_saved"}\n')
    assert watch.is_saved()


def test_a_driver_that_has_said_nothing_yet_has_saved_nothing(tmp_path: Path) -> None:
    assert not StopWatch(tmp_path / "events.jsonl").is_saved()

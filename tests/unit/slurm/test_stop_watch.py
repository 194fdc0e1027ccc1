"""When a stop is known to be safely on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.slurm.stop_watch import StopWatch, is_saved

Told = dict[str, Any]


def told(second: float, event: str) -> Told:
    return {"time": f"2026-03-14T09:26:{second:06.3f}+00:00", "event": event}


def saved(second: float, *, seconds: float) -> Told:
    return {**told(second, "checkpoint_saved"), "seconds": seconds, "stall_s": 0.5}


READY, STOP = told(1, "workers_ready"), told(10, "stop_requested")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([READY], False),
        ([READY, STOP], False),
        ([READY, saved(5, seconds=1)], False),
        ([READY, saved(5, seconds=1), STOP], False),
        ([READY, STOP, saved(15, seconds=3)], True),
        ([READY, STOP, told(12, "run_stopped")], True),
        ([READY, told(9, "run_finished")], True),
    ],
)
def test_a_checkpoint_counts_if_it_came_after_the_request(events: list[Told], expected: bool) -> None:
    assert is_saved(events) is expected


def test_a_checkpoint_that_was_being_written_at_the_request_is_not_the_stops() -> None:
    """Training goes on beside it, so the stop's own follows."""
    before = saved(12, seconds=8)
    assert not is_saved([READY, STOP, before])
    assert is_saved([READY, STOP, before, saved(21, seconds=8)])
    assert is_saved([READY, STOP, before, told(16, "run_stopped")])


def test_a_driver_that_has_yet_to_train_has_nothing_to_save() -> None:
    start = [told(0, "attempt_started")]
    assert is_saved([])
    assert is_saved([*start, STOP])
    assert not is_saved([*start, READY, STOP])


def test_only_what_came_after_the_watch_began_is_read_and_no_torn_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(lines(READY, STOP, saved(15, seconds=3)))
    watch = StopWatch(log)
    append(log, lines(READY, STOP))
    assert not watch.is_saved()
    last = lines(saved(15, seconds=3))
    append(log, last[:30])
    assert not watch.is_saved()
    append(log, last[30:])
    assert watch.is_saved()


def test_what_a_killed_driver_left_half_written_is_gone_when_the_next_one_writes(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(lines(READY) + '{"time": "2026-03')
    watch = StopWatch(log)
    log.write_text(lines(READY, READY, STOP))
    assert not watch.is_saved()
    append(log, lines(told(12, "run_stopped")))
    assert watch.is_saved()


def test_where_there_is_no_log_yet_all_of_it_is_read(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    watch = StopWatch(log)
    assert watch.is_saved()
    append(log, lines(READY))
    assert not watch.is_saved()


def lines(*events: Told) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)

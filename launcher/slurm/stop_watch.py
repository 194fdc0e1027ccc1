"""Whether all that a driver did up to a request to stop is safely on disk, seen in its event log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any


class StopWatch:
    """Reads on in a run's events from the moment it is made, which is before its driver starts."""

    def __init__(self, events: Path):
        self._path = events
        # The driver will remove a torn last line.
        self._offset = events.read_bytes().rfind(b"\n") + 1 if events.is_file() else 0
        self._events: list[Mapping[str, Any]] = []

    def is_saved(self) -> bool:
        """Whether nothing would be lost by now if the driver, which was asked to stop, ended. Raises OSError."""
        self._read_on()
        return is_saved(self._events)

    def _read_on(self) -> None:
        if self._path.is_file():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _torn = file.read().rpartition(b"\n")
            self._events += [json.loads(line) for line in whole.splitlines()]
            self._offset += len(whole + newline)


def is_saved(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the events since a driver's start tell that it has nothing unsaved: it stopped, or has yet to train.

    A checkpoint that was begun before the request to stop is not the stop's: training went on beside it.
    """
    trains, requested_s = False, float("inf")
    for event in events:
        match event["event"]:
            case "workers_ready":
                trains = True
            case "stop_requested":
                requested_s = _moment_s(event)
            case "checkpoint_saved" if _moment_s(event) - event["seconds"] - event["stall_s"] >= requested_s:
                return True
            case "run_stopped" | "run_finished":
                return True
    return not trains


def _moment_s(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()

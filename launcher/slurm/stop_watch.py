"""Whether all that a driver did up to a request to stop is safely on disk, seen in its event log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_OVER = ("run_stopped", "run_finished")


class StopWatch:
    """Reads on in a run's events from the moment it is made."""

    def __init__(self, events: Path):
        self._path = events
        self._offset = events.stat().st_size if events.is_file() else 0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the request."""
        return time.monotonic() - self._began

    def is_saved(self) -> bool:
        """Whether the driver has told so by now."""
        if not self._path.is_file():
            return False
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _torn = file.read().rpartition(b"\n")
        return is_saved(json.loads(line) for line in whole.splitlines()) if newline else False


def is_saved(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether events that began with a request to stop tell that everything is saved."""
    requested = False
    for event in events:
        requested = requested or event["event"] == "stop_requested"
        if event["event"] in _OVER or (requested and event["event"] == "checkpoint_saved"):
            return True
    return False

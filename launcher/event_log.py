"""A run's events: one JSON object a line, whole or not at all, across any number of attempts."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from launcher.durable import naming_full_disk


class EventLogError(ValueError):
    """An event log holds a line that no run has written."""


class EventLog:
    """Appends to `path`, having removed the torn last line of a run that was killed. Threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        with naming_full_disk(path, 0):
            # A link would have us write into a file outside the run directory.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        self._remove_torn_line()

    def append(self, event: Mapping[str, Any]) -> None:
        """Write `event`, which names itself under "event", with the present "time" (UTC, ISO 8601).

        A number that is not finite becomes null: JSON has none such.

        Raises DiskFullError; the log then ends with the event before.
        """
        assert "event" in event, event
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps(_finite({"time": now, **event}), allow_nan=False).encode() + b"\n"
        with self._lock, naming_full_disk(self.path, len(line)):
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
            except OSError:
                self._remove_torn_line()
                raise

    def close(self) -> None:
        os.close(self._descriptor)

    def _remove_torn_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a run, which may still be running: a last line without its end is left out.

    Raises EventLogError with the number of a line that is no JSON object.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EventLogError(f"{path}, line {number}: not JSON ({error})") from error
    if not isinstance(event, dict):
        raise EventLogError(f"{path}, line {number}: not a JSON object")
    return event


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

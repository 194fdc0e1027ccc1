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


class LoggedEvent(dict[str, Any]):
    """An event as it was read. To ask it for a key that it has not gives an EventLogError with the line's number."""

    def __init__(self, entries: Mapping[str, Any], *, where: str):
        super().__init__(entries)
        self._where = where

    def __missing__(self, key: str) -> Any:
        raise EventLogError(f"{self._where}: it has no {key!r}, as every event of a run's of its kind has")


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


def read_events(path: Path) -> list[LoggedEvent]:
    """The events of a run, which may still be running: a last line without its end is left out.

    Raises EventLogError with the number of a line that is no JSON object with a name and a time.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_parse(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]


def _parse(where: str, line: bytes) -> LoggedEvent:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EventLogError(f"{where}: not JSON ({error})") from error
    if not isinstance(event, dict):
        raise EventLogError(f"{where}: not a JSON object")
    logged = LoggedEvent(event, where=where)
    name, time = logged["event"], logged["time"]
    try:
        datetime.fromisoformat(time)
    except (ValueError, TypeError) as error:
        raise EventLogError(f"{where}: its time is none") from error
    if not isinstance(name, str):
        raise EventLogError(f"{where}: its name is no text")
    return logged


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

"""What a worker that crashed had still to say: the signal it died of, and where in its code."""

from __future__ import annotations

import re
from pathlib import Path

_SIGNAL = re.compile(r"^\*\*\* (SIG[A-Z]+) received", re.MULTILINE)
_PLACE = re.compile(r'^Stack \(most recent call first\):\n  File "(?:.*/)?(.+)", line (\d+) in (.+)$', re.MULTILINE)
_SAID_BY_RAY = re.compile(r"^:[a-z_]+:|^\[[^]]+\]")
_MOST_BYTES = 2**20


def last_words(logs: Path, pid: int) -> str | None:
    """How the process `pid` crashed, as "SIGSEGV in linear (linear.py:134)"; None if it left no such word in `logs`.

    Ray's handler of fatal signals and Python's (faulthandler) write to the worker's stderr, which Ray keeps in a file.
    """
    for log in logs.glob(f"worker-*-{pid}.err"):
        with log.open("rb") as stream:
            return crash(stream.read(_MOST_BYTES).decode(errors="replace"))
    return None


def crash(stderr: str) -> str | None:
    """How a process crashed, told from its stderr; None if it did not."""
    signal = _SIGNAL.search(stderr)
    if signal is None:
        return None
    place = _PLACE.search(stderr, signal.end())
    where = f" in {place[3]} ({place[1]}:{place[2]})" if place else ""
    before = [line for line in stderr[: signal.start()].splitlines() if line.strip() and not _SAID_BY_RAY.match(line)]
    return f"{signal[1]}{where}" + (f", after saying {before[-1].strip()!r}" if before else "")

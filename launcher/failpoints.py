"""Named points at which a test can have this process killed, to prove that no moment of death loses work.

RESOLUTE_FAILPOINT=name:occurrence[:rank] kills (SIGKILL) the process of that rank, any rank if none is given,
when it comes past the point for that time, counted from 1. The variable is read once, at import. It is for
tests alone.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

VARIABLE = "RESOLUTE_FAILPOINT"

POINTS = frozenset(
    {
        "checkpoint.begin",
        "checkpoint.part_written",
        "checkpoint.before_manifest",
        "checkpoint.before_rename",
        "checkpoint.after_rename",
        "checkpoint.committed",
        "checkpoint.deleting",
        "file.before_rename",
        "file.after_rename",
        "worker.transition_agreed",
        "worker.lease_trained",
    }
)


@dataclass
class Failpoint:
    name: str
    remaining: int
    rank: int | None

    def pass_by(self, name: str, rank: int) -> None:
        if name != self.name or self.rank not in (None, rank):
            return
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def parse(text: str) -> Failpoint | None:
    """The failpoint that `text` describes; None for an empty text. Raises ValueError for an unknown name."""
    if not text:
        return None
    name, occurrence, *rank = text.split(":")
    if name not in POINTS:
        raise ValueError(f"{VARIABLE}={text}: no point is named {name!r}; there are {', '.join(sorted(POINTS))}")
    return Failpoint(name, int(occurrence), int(rank[0]) if rank else None)


_armed = parse(os.environ.get(VARIABLE, ""))


def hit(name: str, *, rank: int = 0) -> None:
    """Come past the point `name`, as the worker of `rank`. One comparison, unless a test armed one."""
    if _armed is not None:
        assert name in POINTS, name
        _armed.pass_by(name, rank)

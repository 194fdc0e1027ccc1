"""Named points at which a test can have this process killed, to prove that no moment of death loses work.

RESOLUTE_FAILPOINT=name:occurrence[:rank] kills (SIGKILL) the process of that rank, any rank if none is given,
when it comes past the point for that time, counted from 1. The variable is read once, at import. `arm` does the same,
or whatever a test wants, in a running process. Both are for tests alone.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Protocol

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
        "claim.unsigned",
        "claim.made",
        "claim.taken",
        "file.before_rename",
        "file.after_rename",
        "norm.recalibrating",
        "saving.before_gather",
        "saving.gathered",
        "saving.copied",
        "trainer.step",
        "worker.before_acknowledgement",
        "worker.transition_agreed",
        "worker.lease_received",
        "worker.lease_trained",
        "worker.epoch_trained",
        "worker.evaluated",
    }
)


class Witness(Protocol):
    """Sees every point that its process comes past."""

    def pass_by(self, name: str, rank: int) -> None: ...


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


_armed: Witness | None = parse(os.environ.get(VARIABLE, ""))


def arm(witness: Witness | None) -> None:
    """From now on show every point passed to `witness`, which may end the process there."""
    global _armed
    _armed = witness


def hit(name: str, *, rank: int = 0) -> None:
    """Come past the point `name`, as the worker of `rank`. One comparison, unless a test armed one."""
    if _armed is not None:
        assert name in POINTS, name
        _armed.pass_by(name, rank)

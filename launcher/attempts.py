"""What to do after an attempt: the run is over, another attempt may get further, or it would end the same way.

A run that comes to lose a worker goes on from its newest checkpoint. What ends it is an error that would come again,
or a number of attempts in a row that have saved nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from launcher.config import Run
from launcher.coordinator import Done, Stop
from launcher.plan import Plan, Position


class RunFailedError(RuntimeError):
    """A run that came up in vain, or that no further attempt would help; the sentence names the cause."""


class NotUpError(RunFailedError):
    """Ray or a node of it did not come up in time; another start may be luckier."""


@dataclass(frozen=True)
class Loss:
    """An attempt lost what it ran on, with no fault in job, data or code that is known."""

    what: str
    """A sentence without its end, naming rank, process and host as far as known."""
    rank: int | None = None
    """The rank that was lost first; None if it is not one alone."""
    host: str | None = None


@dataclass(frozen=True)
class Attempt:
    """How far an attempt came, in saved positions, and how it ended."""

    start: Position
    reached: Position
    ended: Stop | Done | Loss | Exception

    @property
    def in_vain(self) -> bool:
        return isinstance(self.ended, Loss) and self.reached <= self.start


@dataclass(frozen=True)
class Finish:
    """The run is over, or stopped as it was asked to."""

    outcome: Stop | Done


@dataclass(frozen=True)
class Again:
    """Another attempt, from the newest checkpoint and with the workers that there are then."""


@dataclass(frozen=True)
class GiveUp:
    error: Exception


def after(attempts: Sequence[Attempt], *, without_progress: int) -> Finish | Again | GiveUp:
    """What follows the last of `attempts`. So many `without_progress` in a row are too many."""
    ended = attempts[-1].ended
    if isinstance(ended, Exception):
        return GiveUp(ended)
    if isinstance(ended, Loss):
        in_vain = list(takewhile(lambda attempt: attempt.in_vain, reversed(attempts)))
        return GiveUp(_spent(in_vain[::-1])) if len(in_vain) >= without_progress else Again()
    if isinstance(ended, Stop) and ended.resize:
        return Again()
    return Finish(ended)


def refuse_in_vain(events: Iterable[Mapping[str, Any]], plan: Plan, start: Position, run: Run) -> None:
    """Raises RunFailedError if too many attempts in a row have saved nothing beyond `start`.

    `events` are those of events.jsonl. Attempts that were stopped in order, or were another plan's, do not count.
    """
    here = (plan.fingerprint, start.epoch, start.samples_done)
    in_vain = 0
    for event in events:
        if event["event"] == "attempt_started":
            same = (event["plan_fingerprint"], event["epoch"], event["samples_done"]) == here
            in_vain = in_vain + 1 if same else 0
        elif event["event"] in ("checkpoint_saved", "run_stopped", "run_finished"):
            in_vain = 0
    if in_vain >= run.attempts_without_progress:
        raise RunFailedError(
            f"the last {in_vain} attempts saved nothing beyond epoch {start.epoch}, sample {start.samples_done}: "
            f"events.jsonl tells how they ended. When the cause is mended, give --try-again"
        )


def _spent(attempts: Sequence[Attempt]) -> RunFailedError:
    start = attempts[-1].start
    told = "".join(f"\n  {number}. {_what(attempt)}" for number, attempt in enumerate(attempts, start=1))
    have = "attempts in a row have" if len(attempts) > 1 else "attempt has"
    return RunFailedError(
        f"{len(attempts)} {have} saved nothing beyond epoch {start.epoch}, sample {start.samples_done}:{told}\n"
        "the last checkpoint stands; when the cause is mended, resume with --try-again"
    )


def _what(attempt: Attempt) -> str:
    assert isinstance(attempt.ended, Loss), attempt
    return attempt.ended.what

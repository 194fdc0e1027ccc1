"""What a run's first agent does next, given all that has happened. Pure: it neither waits, asks Slurm nor starts.

An attempt is one start of the driver. It has made progress if a newer checkpoint lies there than where it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from launcher.slurm.job_view import Cause

ATTEMPTS_WITHOUT_PROGRESS = 3
"""After so many in a row, within one Slurm job, it is given up."""
DRIVER_DONE, DRIVER_STOPPED, DRIVER_NOT_UP = 0, 3, 4
"""Exit codes of `resolute run` (launcher/cli/errors.py); the last: its nodes did not come together."""


class Step(Enum):
    """One thing to do."""

    START = "start the driver"
    STOP = "ask the driver to stop, with a checkpoint"
    ASK = "ask Slurm why the job was signalled"
    REQUEUE = "have Slurm queue the job again"
    KILL = "end the driver at once"


class Ending(str, Enum):
    """How an agent's part in a job ended."""

    DONE = "done"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """Resumable, and nobody but its user will resume it."""
    FAILED = "failed"
    GAVE_UP = "gave up"
    SUPERSEDED = "superseded"


_END_OF_CHAIN = {Ending.DONE: DRIVER_DONE, Ending.CANCELLED: DRIVER_STOPPED, Ending.GAVE_UP: 1}
"""After which no further job goes on, and their exit codes."""


@dataclass(frozen=True)
class Exit:
    """Leave, with this exit code for Slurm."""

    ending: Ending
    code: int


@dataclass(frozen=True)
class Facts:
    """All that an agent knows. Positions are names of checkpoints, "" for none."""

    began_at: tuple[str, ...] = ()
    """Where each attempt of this Slurm job began, this agent's and earlier ones', in order."""
    position: str = ""
    """The newest checkpoint."""
    running: bool = False
    exit_code: int | None = None
    """Of the driver that ended last; negative for the signal that killed it. None: this agent has started none."""
    signalled: bool = False
    """A signal has come of which the cause is not known yet."""
    cause: Cause | None = None
    """Of the last signal that Slurm was asked about."""
    stop_sent: bool = False
    saved: bool = False
    """Whether all work up to the stop is in a durable checkpoint."""
    requeued: bool | None = None
    """Slurm's answer; None if it was not asked, or could not be."""
    last_call: bool = False
    """If the job is to be queued again, Slurm has to be asked now, whatever is saved."""
    unreached: bool = False
    """Slurm could not be reached a moment ago, and is given a few seconds."""
    given_up_on: bool = False
    """Slurm has not been reached for minutes, in which no driver ran."""
    superseded: bool = False
    """A later start of the same run has taken over: this job's next allocation, or another job."""
    overdue: bool = False
    """The driver was asked to stop and should long have ended."""

    @property
    def attempts_in_vain(self) -> int:
        """How many attempts up to now, counted backwards, began where the newest checkpoint still is."""
        count = 0
        for position in reversed(self.began_at):
            if position != self.position:
                break
            count += 1
        return count


def next_step(facts: Facts) -> Step | Exit | None:
    """What is to be done at once; None: wait for something to happen."""
    if facts.running:
        return _while_running(facts)
    if facts.superseded:
        return Exit(Ending.SUPERSEDED, 1)
    if facts.exit_code == DRIVER_DONE:
        return Exit(Ending.DONE, 0)
    if facts.signalled:
        return Step.ASK
    if facts.cause is not None:
        return _after_signal(facts, facts.cause)
    may_start = facts.attempts_in_vain < ATTEMPTS_WITHOUT_PROGRESS
    if facts.exit_code is None or facts.exit_code < 0 or facts.exit_code == DRIVER_NOT_UP:
        return Step.START if may_start else Exit(Ending.GAVE_UP, 1)
    return Exit(Ending.STOPPED if facts.exit_code == DRIVER_STOPPED else Ending.FAILED, facts.exit_code)


def _while_running(facts: Facts) -> Step | None:
    if facts.superseded or facts.overdue:
        return Step.KILL
    if facts.signalled:
        # Slurm may take its time to answer, and the grace may be short.
        return Step.ASK if facts.stop_sent else Step.STOP
    if facts.cause is not None and _is_fate_open(facts, facts.cause):
        step = _settle_fate(facts, facts.cause)
        return step if step is Step.ASK or facts.saved or facts.last_call else None
    return None


def _after_signal(facts: Facts, cause: Cause) -> Step | Exit | None:
    if facts.given_up_on or not _is_fate_open(facts, cause):
        return _stopped(facts, cause)
    return _settle_fate(facts, cause)


def _is_fate_open(facts: Facts, cause: Cause) -> bool:
    """Whether the job is to be queued again, as far as is known."""
    may_requeue = cause.may_requeue or cause is Cause.UNKNOWN
    return may_requeue and facts.requeued is None and facts.attempts_in_vain < ATTEMPTS_WITHOUT_PROGRESS


def _settle_fate(facts: Facts, cause: Cause) -> Step | None:
    if facts.unreached:
        return None
    return Step.ASK if cause is Cause.UNKNOWN else Step.REQUEUE


def _stopped(facts: Facts, cause: Cause) -> Exit:
    """After a signal. The exit code of a job that is queued again is nobody's business."""
    if facts.requeued or cause is Cause.REQUEUED:
        return Exit(Ending.REQUEUED, 0)
    if cause is Cause.CANCELLED:
        return Exit(Ending.CANCELLED, DRIVER_STOPPED)
    if cause.may_requeue and facts.attempts_in_vain >= ATTEMPTS_WITHOUT_PROGRESS:
        return Exit(Ending.GAVE_UP, 1)
    return Exit(Ending.STOPPED, DRIVER_STOPPED)


def after_predecessor(ending: Ending | None) -> Exit | None:
    """Whether a job leaves at once, as the one before it in its chain ended so that nothing may follow."""
    if ending in _END_OF_CHAIN:
        return Exit(ending, _END_OF_CHAIN[ending])
    return None

"""What Slurm tells of a job, and what a signal to it therefore means. Pure; seen with Slurm 22.05."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

_GOING_ON = frozenset({"RUNNING", "SIGNALING", "CONFIGURING", "RESIZING", "SUSPENDED", "STOPPED"})
"""States of a job that has its nodes and keeps them; Slurm shows what is being done to it in the place of RUNNING."""
_EARLY = timedelta(seconds=90)
"""How much earlier than asked for Slurm may send the signal ahead of a time limit: 60 s by its manual."""
_KILL_WAIT_S = 30.0
"""Slurm's own, where nobody has set another."""
_REQUEUED_WITHIN_S = 5.0
"""For a busy controller to take a request to requeue."""
_OUT_OF_REACH = (
    "timed out",
    "unable to contact slurm controller",
    "connection refused",
    "connection failure",
    "zero bytes were transmitted",
    "standby mode",
    "munge",
)


@dataclass(frozen=True)
class JobView:
    """The fields of `scontrol show job` that tell why a job is being ended. Times are the cluster's own."""

    state: str
    """RUNNING, COMPLETING, ..."""
    reason: str
    restarts: int
    preempted_at: datetime | None
    ends_at: datetime | None
    """The time limit, a preemption's end of grace, or when the job was ended."""


class Cause(str, Enum):
    """Why a job was signalled."""

    PREEMPTION_AHEAD = "preempted, in its grace time"
    TIME_LIMIT_AHEAD = "near its time limit"
    ASKED = "asked to stop by a signal"
    TIME_LIMIT = "at its time limit"
    REQUEUED = "requeued by Slurm"
    PREEMPTED = "preempted for good"
    CANCELLED = "cancelled by its user"
    ENDED = "ended by Slurm"
    UNKNOWN = "unknown, as Slurm does not answer"

    @property
    def may_requeue(self) -> bool:
        """Whether the job's fate is still open, so that `scontrol requeue` undoes nobody's decision: it would bring
        back a job that its user has cancelled, and one that Slurm has requeued itself needs none. A job that Slurm
        ends for any other reason is one that must not be requeued, or Slurm would have done it."""
        return self in _OPEN


_OPEN = frozenset({Cause.PREEMPTION_AHEAD, Cause.TIME_LIMIT_AHEAD, Cause.ASKED, Cause.TIME_LIMIT})


def parse_job(text: str) -> JobView | None:
    """The answer of `scontrol show job --oneliner ID`; None if it tells of no job."""
    # The first of each: a script's arguments, further on, may look like fields.
    fields = dict(reversed(re.findall(r"(\w+)=(\S+)", text)))
    if "JobState" not in fields:
        return None
    return JobView(
        state=fields["JobState"],
        reason=fields.get("Reason", "None"),
        restarts=int(fields.get("Restarts", 0)),
        preempted_at=_time(fields.get("PreemptTime")),
        ends_at=_time(fields.get("EndTime")),
    )


def cause_of(job: JobView | None, *, restarts: int, lead_s: float, now: datetime) -> Cause:
    """Why a job that had started `restarts` times before was signalled.

    `lead_s` is how long before the time limit the job wants to be told.
    """
    if job is None:
        return Cause.UNKNOWN
    if job.restarts > restarts:
        return Cause.REQUEUED
    if job.state in _GOING_ON:
        if job.preempted_at is not None:
            return Cause.PREEMPTION_AHEAD
        near = job.ends_at is not None and job.ends_at - now <= timedelta(seconds=lead_s) + _EARLY
        return Cause.TIME_LIMIT_AHEAD if near else Cause.ASKED
    if job.reason == "TimeLimit" or job.state == "TIMEOUT":
        return Cause.TIME_LIMIT
    # Within its grace a job can be cancelled, too; Slurm sets both times anew when it ends a preempted job itself.
    if job.state == "PREEMPTED" or (job.preempted_at is not None and job.preempted_at == job.ends_at):
        return Cause.PREEMPTED
    cancelled = job.state == "CANCELLED" or (job.state == "COMPLETING" and job.reason == "None")
    return Cause.CANCELLED if cancelled else Cause.ENDED


def seconds_to_requeue(job: JobView, cause: Cause, *, kill_wait_s: float, now: datetime) -> float | None:
    """How long a request to requeue may wait for a checkpoint; None while nothing ends the job.

    After a preemption's grace Slurm would refuse it, and `kill_wait_s` after the time limit nobody is left to ask.
    """
    if job.ends_at is None or cause not in (Cause.PREEMPTION_AHEAD, Cause.TIME_LIMIT):
        return None
    left_s = (job.ends_at - now).total_seconds() + (kill_wait_s if cause is Cause.TIME_LIMIT else 0.0)
    return max(0.0, left_s - min(_REQUEUED_WITHIN_S, left_s / 2))


def parse_kill_wait(config: str) -> float:
    """Seconds from Slurm's SIGTERM to its SIGKILL, of `scontrol show config`."""
    found = re.search(r"^KillWait\s*=\s*(\d+)", config, re.MULTILINE)
    return float(found[1]) if found else _KILL_WAIT_S


def is_out_of_reach(words: str) -> bool:
    """Whether what a command of Slurm's said, or what became of it, tells of a controller that has not been reached.

    A request that timed out may have been heard all the same.
    """
    return any(phrase in words.lower() for phrase in _OUT_OF_REACH)


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:  # "None", "Unknown", "N/A"
        return None

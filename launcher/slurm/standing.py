"""How a submitted run stands, from what Slurm still knows and what the run directory tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.slurm.conduct import DRIVER_STOPPED, Ending

_OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("REVOKED", "TIMEOUT"),
    }
)
"""What a job may end as, by squeue(1), JOB STATE CODES. One in any other state, also in one that a later Slurm knows,
may train yet: its run must not be submitted a second time."""
_WAITING = frozenset({"PENDING", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_WORDS_OF_SLURM = {
    Ending.DONE: "COMPLETED",
    Ending.CANCELLED: "CANCELLED",
    Ending.STOPPED: "FAILED",
    Ending.FAILED: "FAILED",
    Ending.GAVE_UP: "FAILED",
}
"""What Slurm called a job that ended so, for when it has forgotten it."""


@dataclass(frozen=True)
class QueueEntry:
    """What Slurm tells of one job: squeue's columns, or sacct's."""

    job_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    time_left: str = ""

    @property
    def is_live(self) -> bool:
        return self.state not in _OVER


@dataclass(frozen=True)
class Standing:
    """One run's last job."""

    job_id: str
    state: str
    """Slurm's word, or UNKNOWN."""
    explanation: str
    restarts: int
    checkpoint: str
    """Name of the farthest one; "" if there is none."""
    is_live: bool | None
    """Whether Slurm still has to do with it; None if Slurm cannot be asked."""
    resumable: bool
    trouble: str | None
    """Why Slurm cannot be asked."""


def standing(
    job_id: str,
    told: QueueEntry | None,
    records: Sequence[Mapping[str, Any]],
    *,
    checkpoint: str,
    trouble: str | None = None,
) -> Standing:
    """`told` is what Slurm knows: None once it has forgotten the job, or if there is `trouble` in asking it.
    `records` are the agents', of all jobs."""
    own = [line for line in records if line["job_id"] == job_id]
    ending = last_ending(records, job_id)
    state = told.state if told else _WORDS_OF_SLURM.get(ending, "UNKNOWN") if ending else "UNKNOWN"
    is_live = told.is_live if told else None if trouble else False
    return Standing(
        job_id=job_id,
        state=state,
        explanation=_where(told) if told and told.is_live else _explain(told, ending, own, trouble=trouble),
        restarts=max((line["restarts"] for line in own), default=0),
        checkpoint=checkpoint,
        is_live=is_live,
        resumable=is_live is False and ending is not Ending.DONE,
        trouble=trouble,
    )


def last_ending(records: Sequence[Mapping[str, Any]], job_id: str) -> Ending | None:
    """How a job's last agent ended; None while it has not, or if it died without a word."""
    last = _agents([line for line in records if line["job_id"] == job_id])[-1:]
    return Ending(last[0]["ending"]) if last and last[0]["event"] == "agent_ended" else None


def is_final(ending: Ending | None) -> bool:
    """Whether no agent of that job will start after this one."""
    return ending not in (None, Ending.REQUEUED, Ending.SUPERSEDED)


def _agents(own: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in own if line["event"] in ("agent_started", "agent_ended")]


def _where(told: QueueEntry) -> str:
    if told.state in _WAITING:
        return f"waits ({told.reason})"
    left = f", {told.time_left} left" if told.time_left else ""
    return f"on {told.nodes}{left}" if told.nodes else ""


def _explain(
    told: QueueEntry | None, ending: Ending | None, own: Sequence[Mapping[str, Any]], *, trouble: str | None
) -> str:
    """Of a job that is over, or of which Slurm tells nothing."""
    if ending is Ending.DONE:
        return "done"
    if ending is Ending.CANCELLED:
        return f"cancelled by its user, {_what_is_saved(own)}"
    if ending is Ending.GAVE_UP:
        return "given up: several attempts in a row saved nothing new; see the log"
    if ending is Ending.FAILED:
        return "failed; see the log"
    causes = _causes_of_last_stay(own)
    if ending is Ending.STOPPED:
        return f"stopped: {causes[-1]}" if causes else "stopped by hand"
    if told is None:
        return _by_its_records(own) if trouble else "Slurm has forgotten the job, and its agent ended without a word"
    if ending is Ending.REQUEUED:
        return "ended after it was queued again, before its agent began"
    return causes[-1] if causes else "ended before its agent began" if not own else "its agent ended without a word"


def _what_is_saved(own: Sequence[Mapping[str, Any]]) -> str:
    codes = [line["exit_code"] for line in own if line["event"] == "driver_ended"][-1:]
    return "everything saved up to the stop" if codes == [DRIVER_STOPPED] else "its last checkpoint stands"


def _causes_of_last_stay(own: Sequence[Mapping[str, Any]]) -> list[str]:
    restarts = max((line["restarts"] for line in own), default=0)
    return [line["cause"] for line in own if line["event"] == "slurm_asked" and line["restarts"] == restarts]


def _by_its_records(own: Sequence[Mapping[str, Any]]) -> str:
    """Of a job that may live, all that is known without Slurm."""
    last = _agents(own)[-1:]
    if not last:
        return "by the run directory it has not begun"
    since = f"{last[0]['time'].partition('.')[0]} UTC"
    if last[0]["event"] == "agent_started":
        return f"by the run directory it began at {since} and has not ended"
    return f"by the run directory it was queued again at {since}"

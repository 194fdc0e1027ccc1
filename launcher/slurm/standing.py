"""How a submitted run stands, from what Slurm still knows and what the run directory tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.slurm.conduct import Ending

_LIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING", "COMPLETING", "REQUEUED"}
)
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
        return self.state in _LIVE


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
    is_live: bool
    resumable: bool


def standing(
    job_id: str, told: QueueEntry | None, records: Sequence[Mapping[str, Any]], *, checkpoint: str
) -> Standing:
    """`told` is what Slurm knows, None once it has forgotten the job; `records` are the agents', of all jobs."""
    own = [line for line in records if line["job_id"] == job_id]
    ending = _ending(own)
    state = told.state if told else _WORDS_OF_SLURM.get(ending, "UNKNOWN") if ending else "UNKNOWN"
    is_live = told is not None and told.is_live
    return Standing(
        job_id=job_id,
        state=state,
        explanation=_explain(told, ending, own, is_live=is_live),
        restarts=max((line["restarts"] for line in own), default=0),
        checkpoint=checkpoint,
        is_live=is_live,
        resumable=not is_live and ending is not Ending.DONE,
    )


def _ending(own: Sequence[Mapping[str, Any]]) -> Ending | None:
    """How the job's last agent ended; None while it has not, or if it died without a word."""
    last = [line for line in own if line["event"] in ("agent_started", "agent_ended")][-1:]
    return Ending(last[0]["ending"]) if last and last[0]["event"] == "agent_ended" else None


def _explain(told: QueueEntry | None, ending: Ending | None, own: Sequence[Mapping[str, Any]], *, is_live: bool) -> str:
    if is_live and told is not None:
        if told.state == "PENDING":
            return f"waits ({told.reason})"
        left = f", {told.time_left} left" if told.time_left else ""
        return f"on {told.nodes}{left}" if told.nodes else ""
    if ending is Ending.DONE:
        return "done"
    if ending is Ending.CANCELLED:
        return "cancelled by its user, everything saved up to the stop"
    if ending is Ending.GAVE_UP:
        return "given up: several attempts in a row saved nothing new; see the log"
    if ending is Ending.FAILED:
        return "the driver failed; see the log"
    causes = [line["cause"] for line in own if line["event"] == "slurm_asked"]
    if ending is Ending.STOPPED:
        return f"stopped: {causes[-1]}" if causes else "stopped by hand"
    if told is None:
        return "Slurm has forgotten the job, and its agent ended without a word"
    return causes[-1] if causes else "ended before its agent began" if not own else "its agent ended without a word"

"""What a run directory keeps of Slurm: which jobs were submitted for it, and what their agents did.

Two logs, each line whole or absent. `resolute submit` alone writes the first, a job's first agent alone the second: no
two hosts write to one file at a time, which shared file systems would not order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.durable import make_directory
from launcher.event_log import EventLog, LoggedEvent, read_events
from launcher.listing import names_among, told_checkpoints
from launcher.paths import CheckpointName, RunPaths
from launcher.slurm.conduct import Ending
from launcher.slurm.job_view import Cause


@dataclass(frozen=True)
class SlurmPaths:
    """Where everything of Slurm lies in the run directory `root`, or beside the runs of a sweep."""

    root: Path

    @property
    def folder(self) -> Path:
        """Batch scripts by their job's id, and what was printed before the agents had the log."""
        return self.root / "slurm"

    @property
    def submissions(self) -> Path:
        return self.folder / "submissions.jsonl"

    @property
    def attempts(self) -> Path:
        return self.folder / "attempts.jsonl"

    @property
    def log(self) -> Path:
        """What driver and agents say, over all attempts."""
        return RunPaths(self.root).logs / "slurm.log"


@dataclass(frozen=True)
class Stay:
    """One allocation of a job: between two requeues."""

    job_id: str
    restarts: int


def append(path: Path, event: str, **facts: Any) -> None:
    """Add a line to one of the logs. Raises DiskFullError."""
    make_directory(path.parent)
    log = EventLog(path)
    try:
        log.append({"event": event, **facts})
    finally:
        log.close()


def read(path: Path) -> list[LoggedEvent]:
    """The lines of one of the logs, oldest first; none if it does not exist yet."""
    return read_events(path) if path.is_file() else []


def newest_checkpoint(root: Path) -> str:
    """Name of the farthest position that a checkpoint lies at, which is not looked into; "" if there is none."""
    paths = RunPaths(root)
    names = map(CheckpointName.parse, names_among(paths.checkpoints, told_checkpoints(paths)))
    positions = [name.position for name in names if name is not None]
    return str(CheckpointName(max(positions))) if positions else ""


def attempts_of(records: list[LoggedEvent], job_id: str) -> tuple[str, ...]:
    """Where the attempts of one Slurm job began, over all its stays."""
    return tuple(line["position"] for line in records if line["event"] == "driver_started" and line["job_id"] == job_id)


def holder(records: list[LoggedEvent]) -> Stay | None:
    """The stay whose agent started last: the only one that may run a driver."""
    begun = _stays(records, "agent_started")
    return begun[-1] if begun else None


def is_over(records: list[LoggedEvent], stay: Stay) -> bool:
    """Whether that stay's first agent has ended, or another stay has begun since.

    Not while it has yet to begin: other nodes' agents may be there before it, and what they find then is of the stay
    before, whose agent may have been killed without a word.
    """
    if stay in _stays(records, "agent_ended"):
        return True
    begun = _stays(records, "agent_started")
    if stay not in begun:
        return any(each.job_id == stay.job_id and each.restarts > stay.restarts for each in begun)
    return begun[-1] != stay


def ending_of(records: list[LoggedEvent], job_id: str) -> Ending | None:
    """How a job ended by what its last agent has told: also that it was cancelled, though it had no time to end.

    None if they do not tell.
    """
    for line in reversed([line for line in records if line["job_id"] == job_id]):
        match line["event"]:
            case "agent_ended":
                return Ending(line["ending"])
            case "slurm_asked":
                return Ending.CANCELLED if line["cause"] == Cause.CANCELLED.value else None
            case "agent_started":
                return None
    return None


def _stays(records: list[LoggedEvent], event: str) -> list[Stay]:
    return [Stay(line["job_id"], line["restarts"]) for line in records if line["event"] == event]

"""An attempt at a run, as tests order it, and what became of it. Imports neither torch nor ray."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from launcher.config import JobConfig
from launcher.coordinator import Done, Stop
from launcher.plan import Position

DRIVER = -1
"""Stands in a rank's place for the process that leads the ranks."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL for the process of `rank` as it comes past the failpoint `point` for the `occurrence`-th time, from 1."""

    point: str
    rank: int
    occurrence: int


@dataclass(frozen=True)
class StopRequest:
    """A stop asked for right before the `asker`-th rank (from 0) to ask for directive `turn` gets its answer."""

    turn: int
    asker: int = 0
    resize: bool = False
    """For another number of workers to go on."""


@dataclass(frozen=True)
class Traces:
    """The files in which an attempt leaves word of itself, whatever becomes of its processes."""

    folder: Path

    @property
    def beginning(self) -> Path:
        return self.folder / "beginning.json"

    @property
    def meeting(self) -> Path:
        """Through which ranks find each other."""
        return self.folder / "meeting"

    @property
    def killed(self) -> Path:
        """Exists if the attempt's Kill was carried out."""
        return self.folder / "killed"

    def ledger(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.ledger"

    def passages(self, rank: int) -> Path:
        """The names of the failpoints that a process came past, one a line."""
        return self.folder / ("driver.passages" if rank == DRIVER else f"rank{rank}.passages")

    def begin(self, start: Position, world_size: int) -> None:
        self.beginning.write_text(json.dumps([start.epoch, start.samples_done, world_size]))

    def start(self) -> tuple[Position, int] | None:
        """Where the attempt began, and with how many workers; None if it did not get that far."""
        if not self.beginning.exists():
            return None
        epoch, samples_done, world_size = json.loads(self.beginning.read_text())
        return Position(epoch, samples_done), world_size


@dataclass(frozen=True)
class Attempt:
    """What to run: `job` in the run directory `root`, from where an earlier attempt left it."""

    job: JobConfig
    root: Path
    traces: Traces
    """In a new folder."""
    kill: Kill | None = None
    stop: StopRequest | None = None
    workers: int | None = None
    """How many there are this time; as many as the job may have if absent."""
    deadline_s: float = 120.0

    @property
    def world_size(self) -> int:
        return self.workers or self.job.run.most_workers


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: with all ranks in agreement, or by an error."""

    end: Stop | Done | None
    error: str
    """Empty if there is an end."""
    seconds: float

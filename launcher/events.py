"""What a run reports while it goes on.

The driver appends each event to events.jsonl and shows it; nothing reads them back to decide anything.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """Base of all events; `name` is the class's name in snake case."""

    @property
    def name(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def to_json(self) -> dict[str, Any]:
        return {"event": self.name, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class AttemptStarted(Event):
    """The driver begins, or resumes, at `epoch` and `samples_done`."""

    job: str
    mode: str
    world_size: int
    plan_fingerprint: str
    epoch: int
    samples_done: int
    checkpoint: str | None
    rejected_checkpoints: tuple[str, ...]


@dataclass(frozen=True)
class WorkersReady(Event):
    """All workers are up, with model and data; told by rank 0."""

    world_size: int
    device: str
    precision: str
    versions: dict[str, str]


@dataclass(frozen=True)
class DataStaged(Event):
    """A node's disk holds a copy of a data file (data.stage); told by the worker that made or checked it."""

    host: str
    source: str
    copy: str
    num_bytes: int
    seconds: float
    """For copying and checking, or for checking alone."""
    reused: bool
    """An earlier attempt had copied it."""


@dataclass(frozen=True)
class DataNotStaged(Event):
    """Workers of a node read a data file from where it lies, although the job has data.stage."""

    host: str
    source: str
    reason: str


@dataclass(frozen=True)
class Progress(Event):
    """Within an epoch, about every lease; shown, not logged."""

    epoch: int
    samples_done: int
    num_samples: int
    resolution: int
    images_per_s: float
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class EpochTrained(Event):
    """An epoch's training is over. Rates and sums are over all ranks, and over the attempts as far as saved."""

    epoch: int
    phase: int
    phase_name: str
    resolution: int
    global_batch: int
    samples: int
    seconds: float
    images_per_s: float
    data_wait_s: float
    """Seconds that rank 0 waited for decoded batches."""
    loss: float
    learning_rate: float
    """Of the epoch's last step."""


@dataclass(frozen=True)
class Evaluated(Event):
    """Accuracy over the whole validation set, every image once; `moment` as in the directive."""

    epoch: int
    phase: int
    resolution: int
    moment: str
    samples: int
    seconds: float
    top1: float
    """Share of images, 0..1."""
    top5: float
    loss: float


@dataclass(frozen=True)
class SamplesReplaced(Event):
    """Others stood in for damaged samples (data.skip_corrupt) in an epoch or evaluation; told by each rank."""

    rank: int
    epoch: int
    samples: int
    damage: tuple[str, ...]
    """File, sample and reason of the first ten."""


@dataclass(frozen=True)
class TransitionMade(Event):
    """All ranks use the new settings. The accuracy before is at the old size, the one after at the new size."""

    epoch: int
    phase: int
    phase_name: str
    resolution_before: int
    resolution_after: int
    global_batch_before: int
    global_batch_after: int
    learning_rate: float
    seconds: float
    """From asking the loader for the new size to every rank's acknowledgement."""
    norm: Literal["recalibrated", "frozen", "none"]
    """What was done about norm statistics."""
    norm_seconds: float
    """For estimating them anew, after the acknowledgements."""
    top1_before: float | None
    top1_after: float | None
    """After that, too; None where neither size nor statistics are others."""


@dataclass(frozen=True)
class CheckpointSaved(Event):
    epoch: int
    samples_done: int
    phase_boundary: bool
    path: str
    num_bytes: int
    seconds: float
    """For writing, while training went on."""
    stall_s: float
    """For which training stood still."""


@dataclass(frozen=True)
class WorkerLost(Event):
    """An attempt lost what it ran on; the run goes on from its newest checkpoint, or says why not."""

    what: str
    rank: int | None
    """None if it is not one rank alone."""
    host: str | None


@dataclass(frozen=True)
class WorkersAwaited(Event):
    """There are too few workers to go on; the run stops, to be resumed, unless that changes in time."""

    missing: str
    within_s: float


@dataclass(frozen=True)
class DiskWillBeFull(Event):
    """The disk has not the room that the run's checkpoints will take."""

    warning: str


@dataclass(frozen=True)
class StopRequested(Event):
    """A signal came; workers end at their lease's end."""

    reason: str


@dataclass(frozen=True)
class RunStopped(Event):
    """Ended before the plan's end, with everything saved."""

    reason: str
    epoch: int
    samples_done: int


@dataclass(frozen=True)
class RunFinished(Event):
    """The plan is carried out; `model` holds the final weights."""

    model: str
    seconds: float
    """Of this attempt."""


@dataclass(frozen=True)
class RunFailed(Event):
    error: str

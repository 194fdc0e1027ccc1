"""What a run's checkpoints will take on the disk, and whether it has that: before hours are spent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher.config import AdamW, Checkpoint, Lamb, Lars, Optimizer, RmsProp, Sgd

_RNG_AND_MANIFEST_BYTES = 100_000


@dataclass(frozen=True)
class DiskBudget:
    """Sizes in bytes."""

    checkpoint_bytes: int
    model_bytes: int
    """Of the final weights, written beside the checkpoints."""
    num_kept: int
    """Checkpoints at the worst moment: those that retention keeps, and the one being written."""

    @property
    def least_bytes(self) -> int:
        """For the next checkpoint and the final weights: without it the run could save nothing."""
        return self.checkpoint_bytes + self.model_bytes

    def more_bytes(self, num_present: int) -> int:
        """What is needed beside `num_present` checkpoints that are there already."""
        return max(self.least_bytes, (self.num_kept - num_present) * self.checkpoint_bytes + self.model_bytes)


def disk_budget(
    optimizer: Optimizer,
    cadence: Checkpoint,
    *,
    state_bytes: int,
    parameter_bytes: int,
    num_boundaries: int,
    has_average: bool,
) -> DiskBudget:
    """Reckoned from a model's `state_bytes` (weights and buffers) and `parameter_bytes`, before there is a state.

    Kept are the phase boundaries, the best and the last `keep_last`, none of which need be another.
    """
    checkpoint_bytes = state_bytes * (2 if has_average else 1) + parameter_bytes * _slots(optimizer)
    num_kept = num_boundaries + cadence.keep_last + cadence.keep_best + 1
    return DiskBudget(checkpoint_bytes + _RNG_AND_MANIFEST_BYTES, state_bytes, num_kept)


def _slots(optimizer: Optimizer) -> int:
    """Tensors that the optimizer keeps for each parameter, of its size."""
    match optimizer:
        case Sgd() | Lars():
            return 1 if optimizer.momentum else 0
        case RmsProp():
            return 2 if optimizer.momentum else 1
        case AdamW() | Lamb():
            return 2


def shortage(budget: DiskBudget, checkpoints: Path, *, free_bytes: int, num_present: int) -> str | None:
    """A sentence for a disk that will be full before the run's end; None if it has what is needed."""
    needed = budget.more_bytes(num_present)
    if free_bytes >= needed:
        return None
    return (
        f"{checkpoints}: the disk has {_size(free_bytes)} free, and the run will need {_size(needed)}: "
        f"{budget.num_kept} checkpoints of {_size(budget.checkpoint_bytes)}, {num_present} of which are there, and the "
        f"final weights. Make room, lower checkpoint.keep_last, or give another --run-dir"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"

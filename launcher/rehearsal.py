"""Each phase's step, tried before hours are spent, so that a batch that does not fit is found at once."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch

from launcher.batch_size import is_out_of_memory
from launcher.plan import EpochSpec
from launcher.trainer import Trainer
from launcher.training_state import load_optimizer_tensors


class RehearsalError(ValueError):
    """A phase cannot be trained on this device as planned."""


def rehearse(trainer: Trainer, rows: Iterable[EpochSpec]) -> None:
    """Train a step of every phase at its largest size, the largest first, and leave no trace: a collective.

    Raises RehearsalError for a phase that does not fit into the device's memory.
    """
    largest: dict[int, EpochSpec] = {}
    for row in rows:
        if row.phase not in largest or row.resolution > largest[row.phase].resolution:
            largest[row.phase] = row
    as_it_was = {name: tensor.to("cpu", copy=True) for name, tensor in trainer.model.state_dict().items()}
    average = trainer.average
    averaged = {name: tensor.to("cpu", copy=True) for name, tensor in average.state_dict().items()} if average else {}
    scaler = trainer.scaler.state_dict()
    for row in sorted(largest.values(), key=lambda row: -row.batch_per_worker * row.resolution**2):
        try:
            trainer.try_step(row)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise _too_large(row, trainer, error) from error
            raise
        trainer.model.load_state_dict(as_it_was)
        load_optimizer_tensors(trainer.model, trainer.optimizer, {})
    if average is not None:
        average.load_state_dict(averaged)
    trainer.scaler.load_state_dict(scaler)
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


def _too_large(row: EpochSpec, trainer: Trainer, error: RuntimeError) -> RehearsalError:
    device = torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "machine"
    return RehearsalError(
        f"phases[{row.phase}]: {row.batch_per_worker} samples of {row.resolution} px at once do not fit into the "
        f"memory of rank {trainer.rank}'s {device} ({str(error).partition('.')[0]}); use a smaller batch_per_worker, "
        "or auto, with global_batch beside it to accumulate"
    )

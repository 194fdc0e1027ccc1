"""Each phase's step, tried before hours are spent, so that a batch that does not fit is found at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from launcher.batch_size import is_out_of_memory
from launcher.plan import EpochSpec
from launcher.trainer import Trainer
from launcher.training_state import load_optimizer_tensors


class RehearsalError(ValueError):
    """A phase cannot be trained on this device as planned."""


def rehearse(trainer: Trainer, rows: Iterable[EpochSpec]) -> None:
    """Train a step of every phase at its largest size, the largest first, and leave no trace: a collective.

    So is a batch of the largest evaluation. Raises RehearsalError for what does not fit into the device's memory.
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
        with _told_as(partial(_too_large, row, trainer)):
            trainer.try_step(row)
        trainer.model.load_state_dict(as_it_was)
        load_optimizer_tensors(trainer.model, trainer.optimizer, {})
    if average is not None:
        average.load_state_dict(averaged)
    trainer.scaler.load_state_dict(scaler)
    trainer.optimizer.zero_grad(set_to_none=True)
    if largest:
        _try_evaluation(trainer, max(row.resolution for row in largest.values()))
    gc.collect()
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()


def _try_evaluation(trainer: Trainer, largest_training_px: int) -> None:
    examination = trainer.examination
    if examination is None:
        return
    resolution = examination.settings.resolution or largest_training_px
    with _told_as(partial(_too_large_to_judge, resolution, examination.batch, trainer)):
        examination.try_batch(trainer.outcome, resolution)


@contextmanager
def _told_as(sentence: Callable[[RuntimeError], RehearsalError]) -> Iterator[None]:
    """Turn a lack of memory, and nothing else, into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise sentence(error) from error
        raise


def _too_large(row: EpochSpec, trainer: Trainer, error: RuntimeError) -> RehearsalError:
    return RehearsalError(
        f"phases[{row.phase}]: {row.batch_per_worker} samples of {row.resolution} px at once do not fit into the "
        f"memory of {_where(trainer, error)}; use a smaller batch_per_worker, "
        "or auto, with global_batch beside it to accumulate"
    )


def _too_large_to_judge(resolution: int, batch: int, trainer: Trainer, error: RuntimeError) -> RehearsalError:
    return RehearsalError(
        f"evaluation: {batch} images of {resolution} px at once do not fit into the memory of "
        f"{_where(trainer, error)}; use a smaller evaluation.batch_per_worker, which changes no score, "
        "or a smaller evaluation.resolution"
    )


def _where(trainer: Trainer, error: RuntimeError) -> str:
    device = torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else "machine"
    return f"rank {trainer.rank}'s {device} ({str(error).partition('.')[0]})"

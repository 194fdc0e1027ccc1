"""How well a model does at sizes that it was not trained at: the train-test discrepancy at a glance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ffcv_datasets.beton import Beton
from ffcv_datasets.loader import Loader
from launcher.batch_size import is_out_of_memory
from launcher.config import Evaluation
from launcher.device_batches import host_memory, transfer_to
from launcher.examination import Examination
from launcher.model_input import ModelInput, choose_precision
from launcher.models import check_model, lay_out
from launcher.tasks.classification import Classification, Scores
from launcher.trained_model import TrainedModel

_SHARES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
_COARSE, _FINE = 32, 4


class SweepError(ValueError):
    """A model that cannot be judged by these data, or at that size."""


@dataclass(frozen=True)
class SizeScores:
    """A model's scores at a size in pixels."""

    resolution: int
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        return {"resolution": self.resolution, **asdict(self.scores)}


def default_sizes(train_resolution: int) -> list[int]:
    """From three quarters of the training size to twice that: where accuracy has its peak, and some way beyond."""
    step = _COARSE if train_resolution >= 4 * _COARSE else _FINE
    return sorted({max(step, round(train_resolution * share / step) * step) for share in _SHARES})


def sweep(
    trained: TrainedModel,
    val_data: Path,
    sizes: Sequence[int],
    *,
    settings: Evaluation,
) -> Iterator[SizeScores]:
    """Judge a model by every image of a data set at each size, in this process, on the first GPU if there is one; each
    size's scores as soon as they are there.

    Above the size that it was trained at, fewer images are taken at once. Raises ModelError for a size that the model
    does not take, and SweepError for labels that it does not know, before anything is computed; SweepError also for a
    lack of memory.
    """
    check_model(trained.job.model, num_classes=trained.num_classes, resolutions=sizes)
    _require_known_labels(trained, val_data)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model = lay_out(trained.model, device)
    data = trained.job.data
    with Loader(
        val_data,
        threads=data.decode_threads_per_worker,
        batches_ahead=data.batches_ahead,
        skip_corrupt=data.skip_corrupt,
        allocate=host_memory(device),
    ) as loader:
        examination = Examination(
            data=loader,
            transfer=transfer_to(device),
            task=Classification(
                num_classes=trained.num_classes, loss=trained.job.loss, flip_tta=settings.flip_tta, device=device
            ),
            model_input=ModelInput(trained.pixels, device, choose_precision(trained.job.run.precision, device)),
            settings=settings,
            replaced=[],
        )
        for size in sizes:
            batch = batch_at(size, batch=settings.batch_per_worker, trained_at=trained.train_resolution)
            at_size = settings.model_copy(update={"batch_per_worker": batch})
            with _memory_told(size, batch):
                scores = dataclasses.replace(examination, settings=at_size).examine(model, size)
            yield SizeScores(size, scores)


def batch_at(size: int, *, batch: int, trained_at: int) -> int:
    """Images to judge at once: `batch` up to the training size in pixels, above it as many as take the same memory."""
    return max(1, min(batch, batch * trained_at**2 // size**2))


def _require_known_labels(trained: TrainedModel, val_data: Path) -> None:
    with Beton(val_data) as beton:
        largest = int(beton.labels().max(initial=0))
    if largest >= trained.num_classes:
        raise SweepError(
            f"{val_data} holds label {largest}, and the model knows {trained.num_classes} classes, "
            f"0 .. {trained.num_classes - 1}; give data with the classes that it was trained on as --data VAL.beton"
        )


@contextmanager
def _memory_told(size: int, batch: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise SweepError(
            f"{size} px: {batch} images of that size at once do not fit into the memory "
            f"({str(error).partition('.')[0]}); leave that size out"
        ) from error

"""How well a model does at sizes that it was not trained at: the train-test discrepancy at a glance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ffcv_datasets.loader import Loader
from launcher.config import Evaluation
from launcher.device_batches import host_memory, transfer_to
from launcher.examination import Examination
from launcher.model_input import ModelInput, choose_precision
from launcher.models import check_model, lay_out
from launcher.tasks.classification import Classification, Scores
from launcher.trained_model import TrainedModel

_SHARES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
_COARSE, _FINE = 32, 4


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
    on_scores: Callable[[SizeScores], None] = lambda _: None,
) -> list[SizeScores]:
    """Judge a model by every image of a data set at each size, in this process, on the first GPU if there is one.

    Raises ModelError for a size that the model does not take, before anything is computed.
    """
    check_model(trained.job.model, num_classes=trained.num_classes, resolutions=sizes)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model = lay_out(trained.model, device)
    data = trained.job.data
    swept = []
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
            swept.append(SizeScores(size, examination.examine(model, size)))
            on_scores(swept[-1])
    return swept

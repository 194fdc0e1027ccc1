"""Judge a model by every image of a data set, each once, shared among the ranks."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import nn

from ffcv_datasets.batches import BatchSource
from ffcv_datasets.crop import CentreView
from ffcv_datasets.decoder import DataError
from launcher.config import Evaluation
from launcher.device_batches import Transfer
from launcher.model_input import ModelInput
from launcher.sample_order import evaluation_batches
from launcher.tasks.classification import Classification, Scores


@dataclass(frozen=True)
class Examination:
    """A data set to judge models by, and how. `replaced` collects what was wrong with samples that others stand for."""

    data: BatchSource
    transfer: Transfer
    task: Classification
    model_input: ModelInput
    settings: Evaluation
    replaced: list[DataError]
    rank: int = 0
    world_size: int = 1

    @property
    def batch(self) -> int:
        """Images that a rank judges at once."""
        most_of_a_rank = math.ceil(self.data.num_samples / self.world_size)
        return max(1, min(self.settings.batch_per_worker, most_of_a_rank))

    @torch.inference_mode()
    def try_batch(self, model: nn.Module, resolution: int) -> None:
        """Compute what `examine` computes for a batch, to see whether it can be done. Nothing is judged or drawn."""
        model.eval()
        shape = (self.batch, resolution, resolution, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=next(model.parameters()).device)
        with self.model_input.autocast():
            model(self.model_input.normalise(pixels))

    @torch.inference_mode()
    def examine(self, model: nn.Module, resolution: int) -> Scores:
        """A collective: every rank judges its share. The model stays in evaluation mode."""
        model.eval()
        shares = evaluation_batches(
            self.data.num_samples,
            batch=self.settings.batch_per_worker,
            rank=self.rank,
            world_size=self.world_size,
        )
        view = CentreView(resolution, crop_ratio=self.settings.crop_ratio)
        with self.data.batches(shares, view) as decoded, closing(self.transfer.batches(decoded)) as batches:
            for batch in batches:
                self.replaced.extend(batch.replaced)
                images = self.model_input.normalise(batch.pixels)
                with self.model_input.autocast():
                    self.task.judge(model, images, batch.labels)
        return self.task.scores()

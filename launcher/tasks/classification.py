"""Image classification: the training loss, top-1 and top-5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from launcher.config import Loss


@dataclass(frozen=True)
class Scores:
    """A finished evaluation over all ranks: shares of images in 0..1, mean loss per image."""

    samples: int
    top1: float
    top5: float
    loss: float


class Classification:
    """Loss and metrics of a classifier with `num_classes` logits."""

    def __init__(self, *, num_classes: int, loss: Loss, flip_tta: bool, device: torch.device):
        self._training_loss = loss
        self._flip_tta = flip_tta
        self._accuracy = MetricCollection(
            {
                "top1": MulticlassAccuracy(num_classes, top_k=1, average="micro"),
                "top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            }
        ).to(device)
        self._loss = MeanMetric().to(device)
        self._samples = SumMetric().to(device)

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of a batch: images (N, 3, H, W) float -> scalar.

        `labels` are (N,) int64, or (N, num_classes) probabilities where images were mixed.
        """
        logits, smoothing = model(images), self._training_loss.label_smoothing
        if self._training_loss.name == "cross_entropy":
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        num_classes = logits.shape[1]
        targets = labels if labels.is_floating_point() else F.one_hot(labels, num_classes)
        targets = targets * (1 - smoothing) + smoothing / num_classes
        # A sum over the classes, as if each were a question of its own, and the mean over the images.
        return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum") / len(images)

    def judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Add a batch to the evaluation under way; the loss is plain cross entropy, without smoothing."""
        logits = model(images)
        if self._flip_tta:
            logits = (logits + model(images.flip(3))) / 2
        logits = logits.float()
        self._accuracy.update(logits, labels)
        self._loss.update(F.cross_entropy(logits, labels), weight=len(labels))
        self._samples.update(len(labels))

    def scores(self) -> Scores:
        """End the evaluation and sum it over all ranks: a collective, to be called by every rank."""
        accuracy = self._accuracy.compute()
        scores = Scores(
            samples=int(self._samples.compute()),
            top1=float(accuracy["top1"]),
            top5=float(accuracy["top5"]),
            loss=float(self._loss.compute()),
        )
        for metric in (self._accuracy, self._loss, self._samples):
            metric.reset()
        return scores

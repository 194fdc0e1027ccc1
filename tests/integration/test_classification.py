"""The training losses, for whole labels and for mixed ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from launcher.config import Loss
from launcher.tasks.classification import Classification

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
LABELS = torch.tensor([0, 2])
ONE_HOT = torch.eye(3)[LABELS]


def loss_of(labels: Tensor, loss: Loss) -> float:
    task = Classification(num_classes=3, loss=loss, flip_tta=False, device=torch.device("cpu"))
    return task.loss(nn.Identity(), LOGITS, labels).item()


def test_bce_asks_of_every_class_by_itself() -> None:
    expected = 0.0
    for logits, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        for class_, logit in enumerate(logits):
            probability = 1 / (1 + math.exp(-logit))
            expected -= math.log(probability if class_ == label else 1 - probability)
    assert loss_of(LABELS, Loss(name="bce")) == pytest.approx(expected / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_and_their_probabilities_give_the_same_loss(name: str, smoothing: float) -> None:
    loss = Loss.model_validate({"name": name, "label_smoothing": smoothing})
    assert loss_of(LABELS, loss) == pytest.approx(loss_of(ONE_HOT, loss), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_smoothing_is_a_mixture_with_all_classes_alike(name: str) -> None:
    plain = Loss.model_validate({"name": name})
    smoothed = Loss.model_validate({"name": name, "label_smoothing": 0.3})
    assert loss_of(LABELS, smoothed) == pytest.approx(loss_of(0.7 * ONE_HOT + 0.1, plain), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_the_loss_of_a_mixed_image_lies_between_those_of_its_parts(name: str) -> None:
    loss = Loss.model_validate({"name": name})
    halves = [loss_of(torch.eye(3)[[class_, class_]], loss) for class_ in (0, 1)]
    assert loss_of(torch.tensor([[0.5, 0.5, 0.0]] * 2), loss) == pytest.approx(sum(halves) / 2, rel=1e-6)

"""The training losses, for whole labels and for mixed ones; and how images are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


class LeftHalf(nn.Module):
    """Logits (N, 6) are the left half of an image's first row: turned round, an image has those of the right half."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :6]


# Label, logits of the image, and of the image turned round:
JUDGED = (
    (0, [4, 0, 0, 0, 0, 0], [0, 6, 0, 0, 0, 0]),  # first, and second with both
    (5, [1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 12]),  # last, and first with both
    (2, [5, 4, 3, 2, 1, 0], [7, 6, 5, 4, 3, 2]),  # third
    (3, [0, 0, 0, 3, 0, 0], [0, 0, 0, 5, 0, 0]),  # first
    (4, [0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 9, 0]),  # second, and first with both
)
BOTH_WAYS = (
    [2, 3, 0, 0, 0, 0],
    [1, 2, 3, 4, 5, 6],
    [6, 5, 4, 3, 2, 1],
    [0, 0, 0, 4, 0, 0],
    [0, 0, 0, 0, 5, 1],
)


def cross_entropy(logits: Sequence[float], label: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[label]


@pytest.mark.parametrize(
    ("flip_tta", "top1", "top5", "judged_by"),
    [(False, 2 / 5, 4 / 5, [logits for _, logits, _ in JUDGED]), (True, 3 / 5, 5 / 5, BOTH_WAYS)],
    ids=["as they are", "turned round, too"],
)
def test_scores_are_those_of_the_logits_of_every_image_whatever_the_batches(
    flip_tta: bool, top1: float, top5: float, judged_by: Sequence[Sequence[float]]
) -> None:
    smoothed = Loss(label_smoothing=0.3)
    task = Classification(num_classes=6, loss=smoothed, flip_tta=flip_tta, device=torch.device("cpu"))
    rows = torch.tensor([[*logits, *reversed(turned)] for _, logits, turned in JUDGED], dtype=torch.float32)
    images, labels = rows[:, None, None, :].expand(-1, 3, 4, -1), torch.tensor([label for label, *_ in JUDGED])
    losses = [cross_entropy(logits, label) for logits, (label, *_) in zip(judged_by, JUDGED, strict=True)]
    for _ in ("the first evaluation", "the next one, which starts anew"):
        for part in (slice(0, 3), slice(3, 5)):
            task.judge(LeftHalf(), images[part], labels[part])
        scores = task.scores()
        assert scores.samples == 5
        assert scores.top1 == pytest.approx(top1)
        assert scores.top5 == pytest.approx(top5)
        assert scores.loss == pytest.approx(sum(losses) / 5, rel=1e-5)


def test_of_fewer_than_five_classes_all_are_among_the_first_five() -> None:
    task = Classification(num_classes=3, loss=Loss(), flip_tta=False, device=torch.device("cpu"))
    task.judge(nn.Identity(), LOGITS, LABELS)
    scores = task.scores()
    assert (scores.top1, scores.top5) == (0.5, 1.0)

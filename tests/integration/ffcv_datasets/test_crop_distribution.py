"""Our random crops against those that torchvision draws: the same distribution, from another generator."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from ffcv_datasets.crop import TrainView, boxes

DRAWS = 8000


def torchvision_boxes(height: int, width: int, scale: tuple[float, float]) -> NDArray[np.int64]:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    return np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(DRAWS)])


def our_boxes(height: int, width: int, scale: tuple[float, float]) -> NDArray[np.int64]:
    sides = np.full(DRAWS, height, np.int32), np.full(DRAWS, width, np.int32)
    box = boxes(TrainView(0, 0, 8, crop_scale=scale), np.arange(DRAWS), *sides)
    return np.stack([box.top, box.left, box.height, box.width], axis=1).astype(np.int64)


def largest_gap(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The Kolmogorov-Smirnov statistic of two samples."""
    values = np.concatenate([ours, theirs])
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (ours, theirs)]
    return float(np.abs(shares[0] - shares[1]).max())


def measures(box: NDArray[np.int64], size: tuple[int, int]) -> list[NDArray[np.float64]]:
    """The four numbers, and how they hang together: area, ratio, place within the room there is."""
    top, left, height, width = box.T.astype(np.float64)
    room = size[0] + 1 - height, size[1] + 1 - width
    return [top, left, height, width, height * width, width / height, top / room[0], left / room[1], top - left]


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.35, 1.0)])
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (32, 32), (60, 500)])
def test_crops_are_distributed_as_torchvisions(size: tuple[int, int], scale: tuple[float, float]) -> None:
    ours, theirs = our_boxes(*size, scale), torchvision_boxes(*size, scale)
    # Two samples of one distribution lie further apart once in 10,000 cases: sqrt(-log(0.00005) / 2 * 2 / DRAWS).
    limit = np.sqrt(-np.log(0.00005) / DRAWS)
    for ours_measured, theirs_measured in zip(measures(ours, size), measures(theirs, size), strict=True):
        assert largest_gap(ours_measured, theirs_measured) < limit

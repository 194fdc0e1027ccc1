from __future__ import annotations

import numpy as np

from ffcv_datasets.card import Extent
from ffcv_datasets.tally import channel_statistics, extent


def test_channel_statistics_are_those_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 3)) // [1, 2, 3]
    histogram = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T])
    mean, std = channel_statistics(histogram)
    assert np.allclose(mean, pixels.mean(0), rtol=1e-12)
    assert np.allclose(std, pixels.std(0), rtol=1e-12)


def test_one_colour_has_no_deviation() -> None:
    histogram = np.zeros((3, 256), np.int64)
    histogram[:, 200] = 1 << 50
    assert channel_statistics(histogram) == ((200, 200, 200), (0, 0, 0))


def test_extent() -> None:
    assert extent(np.array([3, 1, 2], np.uint16)) == Extent(min=1, mean=2.0, max=3)

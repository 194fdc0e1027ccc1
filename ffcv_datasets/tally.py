"""Counts the pictures that go into a file, for its card."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.card import Extent
from ffcv_datasets.picture import StoredPicture

Rgb = tuple[float, float, float]


@dataclass
class Tally:
    labels: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    """Pixels per level, for R, G and B."""
    num_jpeg: int = 0
    num_kept: int = 0

    def count(self, picture: StoredPicture, label: int) -> None:
        self.labels.append(label)
        self.widths.append(picture.width)
        self.heights.append(picture.height)
        self.histogram += picture.histogram
        self.num_jpeg += picture.is_jpeg
        self.num_kept += picture.is_kept

    def per_class(self, num_classes: int) -> tuple[int, ...]:
        return tuple(np.bincount(self.labels, minlength=num_classes).tolist())


def channel_statistics(histogram: NDArray[np.int64]) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation per channel, in 0..255, from the pixels per level, (3, 256)."""
    levels = np.arange(256)
    num_pixels = histogram.sum(axis=1)
    mean = (histogram * levels).sum(axis=1) / num_pixels
    variance = (histogram * (levels - mean[:, None]) ** 2).sum(axis=1) / num_pixels
    return _rgb(mean), _rgb(np.sqrt(variance))


def extent(sides: list[int]) -> Extent:
    return Extent(min=min(sides), mean=sum(sides) / len(sides), max=max(sides))


def _rgb(channels: NDArray[np.float64]) -> Rgb:
    red, green, blue = channels.tolist()
    return red, green, blue

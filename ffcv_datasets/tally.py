"""Counts the pictures that go into a file, for its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.card import Card, Extent, LevelCard, file_sha256
from ffcv_datasets.picture import Encoding, StoredPicture

Rgb = tuple[float, float, float]


@dataclass
class Tally:
    labels: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    """Pixels per level of brightness, for R, G and B."""
    num_jpeg: int = 0
    num_kept: int = 0
    num_indexed: int = 0
    index_bytes: int = 0
    """Of the restart indexes, further levels' included."""
    stored: list[list[int]] = field(default_factory=list)
    """Bytes of each image at each level: the pictures that have it."""

    def count(self, picture: StoredPicture, label: int) -> None:
        self.labels.append(label)
        self.widths.append(picture.width)
        self.heights.append(picture.height)
        self.histogram += picture.histogram
        self.num_jpeg += picture.is_jpeg
        self.num_kept += picture.is_kept
        self.num_indexed += bool(picture.index)
        self.stored += [[] for _ in range(len(picture.levels) - len(self.stored))]
        for sizes, level in zip(self.stored, picture.levels, strict=True):
            if level:
                sizes.append(len(level.data) + len(level.index))
                self.index_bytes += len(level.index)

    def per_class(self, num_classes: int) -> tuple[int, ...]:
        return tuple(np.bincount(self.labels, minlength=num_classes).tolist())

    def card(
        self,
        beton: Path,
        encoding: Encoding,
        *,
        source: str,
        recipe: dict[str, int] | None,
        classes: Sequence[str] | None,
        num_skipped: int,
    ) -> Card:
        """The card of a finished file with at least one sample."""
        mean, std = channel_statistics(self.histogram)
        return Card(
            source=source,
            recipe=recipe,
            num_samples=len(self.labels),
            num_skipped=num_skipped,
            classes=None if classes is None else tuple(classes),
            samples_per_class=None if classes is None else self.per_class(len(classes)),
            num_bytes=beton.stat().st_size,
            sha256=file_sha256(beton),
            width=extent(self.widths),
            height=extent(self.heights),
            channel_mean=mean,
            channel_std=std,
            max_side=encoding.max_side,
            jpeg_quality=encoding.jpeg_quality,
            share_jpeg=encoding.share_jpeg,
            num_jpeg=self.num_jpeg,
            num_kept=self.num_kept,
            image_bytes=sum(self.stored[0]),
            num_indexed=self.num_indexed,
            index_bytes=self.index_bytes,
            further_levels=tuple(
                LevelCard(max_side=side, num_images=len(sizes), num_bytes=sum(sizes))
                for side, sizes in zip(encoding.further_sides, self.stored[1:], strict=True)
            ),
            has_checksums=True,
        )


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

"""Counts the samples that go into a file, for its card."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_format import JPEG
from ffcv_datasets.beton_writer import BetonWriter, Layout
from ffcv_datasets.card import Extent, LevelCard
from ffcv_datasets.picture import Encoding, StoredPicture
from ffcv_datasets.samples import StoredSample
from ffcv_datasets.targets import BOXES, MASK

Rgb = tuple[float, float, float]

_BRIGHTNESS, _KEPT = "brightness", "kept"


class Tally:
    """Sums that a file's own tables do not tell; by name, so that they can be stored."""

    sums: dict[str, NDArray[np.int64]]

    def __init__(self) -> None:
        self.sums = {}

    def count(self, sample: StoredSample) -> None:
        for value in sample.values.values():
            if isinstance(value, StoredPicture):
                self._add(_BRIGHTNESS, value.histogram.ravel())
                self._add(_KEPT, np.array([value.is_kept]))
        for name, numbers in sample.counts.items():
            self._add(name, numbers)

    def _add(self, name: str, numbers: NDArray[Any]) -> None:
        held = self.sums.setdefault(name, np.zeros(0, np.int64))
        if len(held) < len(numbers):
            held = self.sums[name] = np.pad(held, (0, len(numbers) - len(held)))
        held[: len(numbers)] += numbers

    def facts(self, writer: BetonWriter, encoding: Encoding) -> dict[str, Any]:
        """What the card of a file with one image field and at least one sample says of it, by field of the card."""
        (image,) = writer.layout.of("image")
        rows, levels = writer.rows(), writer.level_rows(image)
        mean, std = channel_statistics(self.sums[_BRIGHTNESS].reshape(3, 256))
        sizes = np.where(levels["size"] > 0, levels["size"] + levels["index_size"], 0)
        return {
            "num_samples": len(rows),
            "fields": tuple(writer.layout.kinds),
            "width": extent(rows[image]["width"]),
            "height": extent(rows[image]["height"]),
            "channel_mean": mean,
            "channel_std": std,
            "max_side": encoding.max_side,
            "jpeg_quality": encoding.jpeg_quality,
            "share_jpeg": encoding.share_jpeg,
            "num_jpeg": int((rows[image]["mode"] == JPEG).sum()),
            "num_kept": int(self.sums[_KEPT][0]),
            "image_bytes": int(sizes[:, 0].sum()),
            "num_indexed": int((levels["index_size"][:, 0] > 0).sum()),
            "index_bytes": int(levels["index_size"].sum()),
            "further_levels": tuple(
                LevelCard(max_side=side, num_images=int((of_side > 0).sum()), num_bytes=int(of_side.sum()))
                for side, of_side in zip(encoding.further_sides, sizes[:, 1:].T, strict=True)
            ),
            "has_checksums": True,
        } | self._target_facts(writer)

    def _target_facts(self, writer: BetonWriter) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if MASK in self.sums:
            facts["mask_bytes"] = int(writer.rows()[MASK]["size"].sum())
            facts["pixels_per_value"] = {value: int(count) for value, count in enumerate(self.sums[MASK]) if count}
        if BOXES in self.sums:
            facts["boxes_per_category"] = tuple(self.sums[BOXES].tolist())
        return facts


def samples_per_class(writer: BetonWriter, num_classes: int) -> tuple[int, ...]:
    """Of a file with one int field."""
    (label,) = writer.layout.of("int")
    return tuple(np.bincount(writer.rows()[label], minlength=num_classes).tolist())


def can_have_card(layout: Layout) -> bool:
    return len(layout.of("image")) == 1 and len(layout.of("int")) <= 1


def channel_statistics(histogram: NDArray[np.int64]) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation per channel, in 0..255, from the pixels per level, (3, 256)."""
    levels = np.arange(256)
    num_pixels = histogram.sum(axis=1)
    mean = (histogram * levels).sum(axis=1) / num_pixels
    variance = (histogram * (levels - mean[:, None]) ** 2).sum(axis=1) / num_pixels
    return _rgb(mean), _rgb(np.sqrt(variance))


def extent(sides: NDArray[np.integer[Any]]) -> Extent:
    return Extent(min=int(sides.min()), mean=float(sides.mean()), max=int(sides.max()))


def _rgb(channels: NDArray[np.float64]) -> Rgb:
    red, green, blue = channels.tolist()
    return red, green, blue

"""Which part of an image a view shows, and whether mirrored: a pure function of (seed, epoch, sample).

An image, its mask, its boxes and its high-resolution target share their geometry by asking here with the same
arguments.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.philox import sample_words

_ATTEMPTS = 10  # as torchvision's RandomResizedCrop.get_params
_FLIP_STREAM = 1 << 16  # away from the attempts' streams 0..9


@dataclass(frozen=True)
class TrainView:
    """A random crop, as torchvision's RandomResizedCrop draws it, and a random horizontal flip.

    Raises ValueError where a number lies outside its range.
    """

    seed: int
    epoch: int
    resolution: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest width / height, drawn uniformly in its logarithm."""
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**64, f"seed: {self.seed} is not in 0 .. 2**64 - 1")
        _require(0 <= self.epoch < 2**32, f"epoch: {self.epoch} is not in 0 .. 2**32 - 1")
        _require_resolution(self.resolution)
        low, high = self.crop_scale
        _require(0 < low <= high <= 1, f"crop_scale: {self.crop_scale} is not 0 < low <= high <= 1")
        low, high = self.crop_ratio
        _require(0 < low <= high < math.inf, f"crop_ratio: {self.crop_ratio} is not 0 < low <= high")
        _require(0 <= self.flip_probability <= 1, f"flip_probability: {self.flip_probability} is not in 0 .. 1")


@dataclass(frozen=True)
class CentreView:
    """The centre square, never flipped: the view for evaluation. Raises ValueError as TrainView does."""

    resolution: int
    crop_ratio: float = 224 / 256
    """The square's side as a share of the image's shorter side."""

    def __post_init__(self) -> None:
        _require_resolution(self.resolution)
        _require(0 < self.crop_ratio <= 1, f"crop_ratio: {self.crop_ratio} is not 0 < ratio <= 1")


View = TrainView | CentreView


@dataclass(frozen=True)
class Boxes:
    """What to cut from N images, in whole pixels of each."""

    top: NDArray[np.int32]
    left: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    flip: NDArray[np.bool_]


def boxes(view: View, samples: NDArray[np.int64], heights: NDArray[np.int32], widths: NDArray[np.int32]) -> Boxes:
    """The boxes of N samples, given their numbers and the sizes of their images (N,), which are at least 1 x 1."""
    heights, widths = heights.astype(np.int32), widths.astype(np.int32)
    if isinstance(view, CentreView):
        return _centre_boxes(view, heights, widths)
    return _random_boxes(view, samples, heights, widths)


def _centre_boxes(view: CentreView, heights: NDArray[np.int32], widths: NDArray[np.int32]) -> Boxes:
    # Rounded down, as FFCV's CenterCropRGBImageDecoder does, so that evaluation agrees with it to the pixel.
    side = np.maximum((view.crop_ratio * np.minimum(heights, widths)).astype(np.int32), 1)
    return Boxes((heights - side) // 2, (widths - side) // 2, side, side, np.zeros(len(side), np.bool_))


def _random_boxes(
    view: TrainView, samples: NDArray[np.int64], heights: NDArray[np.int32], widths: NDArray[np.int32]
) -> Boxes:
    height, width = _widest_central(view.crop_ratio, heights, widths)
    top, left = (heights - height) // 2, (widths - width) // 2
    undecided = np.arange(len(samples))
    for attempt in range(_ATTEMPTS):
        words = sample_words(view.seed, view.epoch, samples[undecided], attempt)
        room_y, room_x = heights[undecided], widths[undecided]
        area = room_y.astype(np.float64) * room_x * _uniform(words[:, 0], *view.crop_scale)
        ratio = np.exp(_uniform(words[:, 1], math.log(view.crop_ratio[0]), math.log(view.crop_ratio[1])))
        box_height = np.rint(np.sqrt(area / ratio)).astype(np.int32)
        box_width = np.rint(np.sqrt(area * ratio)).astype(np.int32)
        fits = (box_height > 0) & (box_height <= room_y) & (box_width > 0) & (box_width <= room_x)
        decided = undecided[fits]
        height[decided], width[decided] = box_height[fits], box_width[fits]
        top[decided] = _below(words[fits, 2], (room_y - box_height + 1)[fits])
        left[decided] = _below(words[fits, 3], (room_x - box_width + 1)[fits])
        undecided = undecided[~fits]
        if not undecided.size:
            break
    flip_words = sample_words(view.seed, view.epoch, samples, _FLIP_STREAM)[:, 0]
    return Boxes(top, left, height, width, flip_words < view.flip_probability * 2.0**32)


def _widest_central(
    ratio: tuple[float, float], heights: NDArray[np.int32], widths: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Height and width of the largest box within the ratios: what remains when no attempt fits."""
    height = np.minimum(heights, np.maximum(np.rint(widths / ratio[0]), 1)).astype(np.int32)
    width = np.minimum(widths, np.maximum(np.rint(heights * ratio[1]), 1)).astype(np.int32)
    return height, width


def _uniform(words: NDArray[np.uint32], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * (words.astype(np.float64) * 2.0**-32)


def _below(words: NDArray[np.uint32], bounds: NDArray[np.int32]) -> NDArray[np.int32]:
    """Uniform integers in 0 .. bound - 1."""
    return (words.astype(np.uint64) * bounds.astype(np.uint64) >> 32).astype(np.int32)


def _require_resolution(resolution: int) -> None:
    _require(1 <= resolution <= 65535, f"resolution: {resolution} is not in 1 .. 65535 pixels")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)

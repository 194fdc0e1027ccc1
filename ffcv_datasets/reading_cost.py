"""Which level the crops of an epoch read, and how many bytes: from a data set's card alone. PURE."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.card import Card

_AREAS, _RATIOS = 256, 65


def level_shares(
    card: Card,
    resolution: int,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[float, ...]:
    """The share of random crops that reads each level, the first included; they sum to 1.

    Reckoned for an image of the mean width and height, so good to a few hundredths where images differ little.
    """
    height, width = card.height.mean, card.width.mean
    box_height, box_width = _boxes(height, width, crop_scale, crop_ratio)
    shares = [1.0]
    for level in card.further_levels:
        shrink = level.max_side / max(height, width)
        serves = (box_height * shrink >= resolution) & (box_width * shrink >= resolution)
        shares.append(float(serves.mean()) * level.num_images / card.num_samples if shrink < 1 else 0.0)
    # A crop that a smaller level serves is served by the larger ones too.
    return tuple(share - smaller for share, smaller in zip(shares, [*shares[1:], 0.0], strict=True))


def bytes_per_epoch(
    card: Card,
    resolution: int,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> int | None:
    """Bytes of images that one epoch reads; None where the card does not tell how many the images take."""
    if card.image_bytes is None:
        return None
    means = [card.image_bytes / card.num_samples]
    means += [level.num_bytes / max(level.num_images, 1) for level in card.further_levels]
    shares = level_shares(card, resolution, crop_scale, crop_ratio)
    return round(card.num_samples * sum(share * mean for share, mean in zip(shares, means, strict=True)))


def _boxes(
    height: float, width: float, crop_scale: tuple[float, float], crop_ratio: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heights and widths of evenly spread crops that fit, as crop.py draws them."""
    area = height * width * np.linspace(*crop_scale, _AREAS)[:, None]
    ratio = np.exp(np.linspace(math.log(crop_ratio[0]), math.log(crop_ratio[1]), _RATIOS))[None, :]
    box_height, box_width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    fits = (box_height <= height) & (box_width <= width)
    if not fits.any():
        return np.array([height]), np.array([width])
    return box_height[fits], box_width[fits]

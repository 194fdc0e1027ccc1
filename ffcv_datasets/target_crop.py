"""Masks and boxes through the crop and flip of their image. PURE.

`crops` are those that crop.boxes gives for the image, in pixels of the stored image, as which its mask is as large:
so a mask's pixel, a box's corner and a pixel of the decoded image lie in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.crop import Boxes

NO_BOX: Final = -1.0
"""In all columns of the rows that pad an image's boxes."""


def crop_masks(
    masks: Sequence[NDArray[Any]], crops: Boxes, height: int, width: int, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """(N, height, width): of N masks (H, W) the crops, each pixel the one of the mask that its centre falls on.

    Filled into `out` where that is given.
    """
    if out is None:
        dtype = np.result_type(*masks) if masks else np.dtype(np.uint8)
        out = np.empty((len(masks), height, width), dtype)
    for index, mask in enumerate(masks):
        rows = crops.top[index] + _nearest(crops.height[index], height)
        columns = crops.left[index] + _nearest(crops.width[index], width)
        out[index] = mask[rows[:, None], columns[::-1] if crops.flip[index] else columns]
    return out


def crop_boxes(targets: NDArray[np.float32], crops: Boxes, height: int, width: int) -> NDArray[np.float32]:
    """(N, K, 5) left, top, right, bottom, category: scaled to crops of height x width, and clipped.

    What is left of an image's boxes stands first, in its order; of a box that lies beside the crop nothing is.
    """
    moved = targets.astype(np.float64)
    for along, start, length, size in ((0, crops.left, crops.width, width), (1, crops.top, crops.height, height)):
        scale = size / length
        moved[..., along::2][..., :2] -= start[:, None, None]
        moved[..., along::2][..., :2] *= scale[:, None, None]
    mirrored = width - moved[..., [2, 0]]
    moved[..., [0, 2]] = np.where(crops.flip[:, None, None], mirrored, moved[..., [0, 2]])
    moved[..., :4] = np.clip(moved[..., :4], 0, (width, height, width, height))
    is_seen = (targets[..., 4] != NO_BOX) & (moved[..., 2] > moved[..., 0]) & (moved[..., 3] > moved[..., 1])
    moved[~is_seen] = NO_BOX
    in_order = np.argsort(~is_seen, axis=1, kind="stable")
    return np.take_along_axis(moved, in_order[..., None], axis=1).astype(np.float32)


def _nearest(length: int, size: int) -> NDArray[np.intp]:
    """(size,): of `length` pixels those on which the centres of `size` larger or smaller ones fall."""
    return ((2 * np.arange(size) + 1) * int(length) // (2 * size)).astype(np.intp)

"""Masks and boxes as a file stores them, in types that FFCV reads too.

The field "mask" (bytes) holds a greyscale PNG file of 8 or 16 bits, as large as the stored image: each pixel's class.
The field "boxes" (ndarray, float32, (K, 5)) holds left, top, right, bottom in pixels of the stored image, and the
category's number, a row per box; rows of NO_BOX make them as many as the image with the most boxes has.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.picture import PictureError
from ffcv_datasets.target_crop import NO_BOX

MASK: Final = "mask"
BOXES: Final = "boxes"
BOX_COLUMNS: Final = 5
FLOAT32: Final = np.dtype("<f4")

Size = tuple[int, int]
"""Width and height in pixels."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH, _PNG_COLOURS = 24, 25
"""Where a PNG file says how many bits a value has, and what the values are."""
_PNG_GREY = 0


def decode_mask(data: bytes) -> NDArray[Any]:
    """(H, W), uint8 or uint16: the values of a palette or greyscale PNG file. Raises PictureError."""
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except Exception as error:  # Pillow's parsers raise whatever the damaged bytes lead them into
        raise PictureError(
            f"its mask is no PNG file, or a damaged one ({str(error) or type(error).__name__})"
        ) from error
    if image.mode in ("P", "1"):
        return np.asarray(image).astype(np.uint8)
    if image.mode == "L":
        depth = data[_PNG_DEPTH] if data[_PNG_COLOURS] == _PNG_GREY else 8
        values = np.asarray(image)
        return values if depth == 8 else values // np.uint8(255 // (2**depth - 1))  # Pillow makes 255 of the largest
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    raise PictureError(f"its mask has colours ({image.mode}); classes are the numbers of a palette or greyscale PNG")


def encode_mask(mask: NDArray[Any]) -> bytes:
    """A greyscale PNG file of a mask (H, W), uint8 or uint16."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def fit_mask(mask: NDArray[Any], upright: Size, stored: Size) -> NDArray[Any]:
    """The mask of an image of size `upright`, at the size that the image is stored at: the nearest pixels.

    Raises PictureError where mask and image differ in size.
    """
    height, width = mask.shape
    if (width, height) != upright:
        raise PictureError(f"its mask is {width} x {height} px, the image {upright[0]} x {upright[1]} px")
    if upright == stored:
        return mask
    columns, rows = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(upright, stored, strict=True))
    return mask[rows[:, None], columns]


def clip_boxes(boxes: NDArray[np.float32], upright: Size) -> NDArray[np.float32]:
    """(n, 5): what of the boxes lies in an image of that size; those of which nothing does are left out."""
    clipped = boxes.copy()
    clipped[:, :4] = np.clip(boxes[:, :4], 0, np.tile(np.array(upright, np.float32), 2))
    left: NDArray[np.float32] = clipped[(clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])]
    return left


def fit_boxes(boxes: NDArray[np.float32], upright: Size, stored: Size, *, num_rows: int) -> NDArray[np.float32]:
    """(num_rows, 5): the boxes (n, 5) of an image of size `upright` as they lie in the stored one, and padding."""
    rows = np.full((num_rows, BOX_COLUMNS), NO_BOX, FLOAT32)
    scale = np.array(stored, np.float64) / upright
    rows[: len(boxes)] = boxes
    rows[: len(boxes), :4] = boxes[:, :4] * np.tile(scale, 2)
    return rows


def read_mask(beton: Beton, sample: int) -> NDArray[Any]:
    """(H, W), uint8 or uint16: a sample's mask, as large as its stored image. Raises BetonError, PictureError."""
    return decode_mask(beton.value(MASK, sample))


def read_boxes(beton: Beton, sample: int) -> NDArray[np.float32]:
    """(K, 5): a sample's boxes and their padding. Raises BetonError."""
    boxes: NDArray[np.float32] = beton.value(BOXES, sample)
    return boxes


def check_target(beton: Beton, field: str, sample: int, value: Any) -> None:
    """Hold a mask or boxes, as read, against the image that they belong to. Raises BetonError, PictureError."""
    if list(beton.fields.values()).count("image") != 1:
        return
    kind, width, height = beton.fields[field], int(beton.widths()[sample]), int(beton.heights()[sample])
    if (field, kind) == (MASK, "bytes") and value.startswith(_PNG_SIGNATURE):  # others are somebody else's
        fit_mask(decode_mask(value), (width, height), (width, height))
    elif (field, kind) == (BOXES, "ndarray") and value.shape[1:] == (BOX_COLUMNS,):
        left, top, right, bottom, category = value[value[:, 4] != NO_BOX].T
        inside = (left >= 0) & (left <= right) & (right <= width) & (top >= 0) & (top <= bottom) & (bottom <= height)
        if not (inside & (category >= 0)).all():
            raise BetonError(beton.path, f"has boxes beyond the image's {width} x {height} px")

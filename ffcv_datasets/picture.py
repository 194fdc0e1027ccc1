"""One picture as a .beton file stores it: upright 8-bit RGB, as JPEG bytes or as raw pixels."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from ffcv_datasets._decode import _core
from ffcv_datasets.levels import MAX_LEVELS

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_BACKGROUND = "white"
_MAX_SIDE = 65_500
"""The longest side a JPEG can have; FFCV's tables end at 65,535."""
_ORIENTATION_TAG = 0x0112
_TURNED = range(2, 9)
_LYING = range(5, 9)


class PictureError(ValueError):
    """A file that cannot be stored as a picture; the message says why."""


class EncodingError(ValueError):
    """A way to store pictures that makes no sense."""


class DamagedJpegError(PictureError):
    """A JPEG file that shows a picture, but not without guesses."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How pictures are stored."""

    max_side: int | None = None
    """Pictures with a longer side than this, in pixels, are shrunk to it; None: none are."""
    jpeg_quality: int = 90
    share_jpeg: float = 1.0
    """Share of the pictures stored as JPEG, spread evenly over the file; the others are raw pixels."""
    keep_jpeg: bool = True
    """Store a JPEG file that already fits as it is, rather than compress it a second time."""
    further_sides: tuple[int, ...] = ()
    """Longest sides, falling, at which JPEG pictures that are larger are stored as well."""
    restart: bool = False
    """Divide JPEG files by restart markers, so that a part can be decoded alone. Changes no pixel."""

    def __post_init__(self) -> None:
        if self.max_side is not None and not 1 <= self.max_side <= _MAX_SIDE:
            raise EncodingError(f"max_side: {self.max_side} is not between 1 and {_MAX_SIDE}")
        if not 1 <= self.jpeg_quality <= 100:
            raise EncodingError(f"jpeg_quality: {self.jpeg_quality} is not between 1 and 100; 90 is usual")
        if not 0 <= self.share_jpeg <= 1:
            raise EncodingError(f"share_jpeg: {self.share_jpeg} is not between 0 and 1; 1 stores all as JPEG")
        sides = (self.max_side or _MAX_SIDE + 1, *self.further_sides, 0)
        if any(larger <= smaller for larger, smaller in itertools.pairwise(sides)) or len(sides) > MAX_LEVELS + 1:
            raise EncodingError(
                f"levels: {', '.join(map(str, sides[:-1]))} do not fall from each to the next, "
                f"or are more than {MAX_LEVELS}; 500,256 is usual"
            )

    def is_jpeg(self, index: int) -> bool:
        """Whether the sample at `index` belongs to the JPEG share."""
        return math.floor((index + 1) * self.share_jpeg) > math.floor(index * self.share_jpeg)


@dataclass(frozen=True, kw_only=True)
class StoredLevel:
    """A picture at one of its sizes."""

    data: bytes
    """A JPEG file, or the pixels: (height, width, 3) uint8, RGB."""
    width: int
    height: int
    index: bytes = b""
    """Where the restart intervals of the JPEG lie; empty if it has none."""


@dataclass(frozen=True, kw_only=True)
class StoredPicture(StoredLevel):
    """A picture at its largest stored size, with its further levels."""

    is_jpeg: bool
    is_kept: bool
    """Its JPEG file was not compressed a second time: every pixel is that of the source file."""
    histogram: NDArray[np.int64]
    """(3, 256): pixels per level of brightness, for R, G and B."""
    further: tuple[StoredLevel | None, ...] = ()
    """One for each of the encoding's further sides; None where the picture is no larger."""

    @property
    def levels(self) -> tuple[StoredLevel | None, ...]:
        return (self, *self.further)


def store_file(data: bytes, encoding: Encoding, *, as_jpeg: bool) -> StoredPicture:
    """Read an image file and encode it. Every pixel is decoded, so that damage is found here.

    Raises PictureError if the file is empty, truncated, damaged, no image, or of no known pixel range.
    """
    if not data:
        raise PictureError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        may_keep = as_jpeg and encoding.keep_jpeg and _fits_as_it_is(image, data, encoding.max_side)
        if encoding.max_side is not None:
            # Lets a JPEG be decoded at 1/2, 1/4 or 1/8 where that leaves at least twice the size wanted.
            image.draft(None, (2 * encoding.max_side, 2 * encoding.max_side))
        rgb = upright_rgb(image)
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(
            "more pixels than Pillow reads without being told that it is no attack; shrink it"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not an image of a known kind ({', '.join(_FORMATS)})") from error
    except Exception as error:  # Pillow's parsers raise whatever the damaged bytes lead them into
        raise PictureError(f"damaged: {str(error) or type(error).__name__}") from error
    if may_keep:
        try:
            return store_jpeg(data, rgb, encoding)
        except DamagedJpegError:
            pass  # Pillow is content with it, the decoder would not be
    return store_rgb(rgb, encoding, as_jpeg=as_jpeg)


def store_jpeg(data: bytes, rgb: Image.Image, encoding: Encoding) -> StoredPicture:
    """Keep a JPEG file; `rgb` is what it shows. Raises DamagedJpegError for one that breaks the format's rules."""
    try:
        restarted, index = _core.add_restarts(data)
    except ValueError as error:
        raise DamagedJpegError(str(error)) from error
    return StoredPicture(
        data=restarted if encoding.restart else data,
        index=index if encoding.restart else b"",
        is_jpeg=True,
        is_kept=True,
        width=rgb.width,
        height=rgb.height,
        histogram=_histogram(rgb),
        further=_further_levels(rgb, encoding),
    )


def store_rgb(rgb: Image.Image, encoding: Encoding, *, as_jpeg: bool) -> StoredPicture:
    """Make an RGB image small enough and encode it. May shrink `rgb` in place."""
    if encoding.max_side is not None:
        rgb.thumbnail((encoding.max_side, encoding.max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if max(rgb.size) > _MAX_SIDE:
        raise PictureError(f"{rgb.width} x {rgb.height} px, the format ends at {_MAX_SIDE}; give a --max-side")
    data, index = _encode_jpeg(rgb, encoding) if as_jpeg else (rgb.tobytes(), b"")
    return StoredPicture(
        data=data,
        index=index,
        width=rgb.width,
        height=rgb.height,
        is_jpeg=as_jpeg,
        is_kept=False,
        histogram=_histogram(rgb),
        further=_further_levels(rgb, encoding) if as_jpeg else (None,) * len(encoding.further_sides),
    )


def _further_levels(rgb: Image.Image, encoding: Encoding) -> tuple[StoredLevel | None, ...]:
    sides = encoding.further_sides
    return tuple(_shrunk_level(rgb, side, encoding) if max(rgb.size) > side else None for side in sides)


def _shrunk_level(rgb: Image.Image, side: int, encoding: Encoding) -> StoredLevel:
    width, height = (max(1, round(length * side / max(rgb.size))) for length in rgb.size)
    data, index = _encode_jpeg(rgb.resize((width, height), Image.Resampling.LANCZOS), encoding)
    return StoredLevel(data=data, index=index, width=width, height=height)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of what `upright_rgb` makes of it, read from its header."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION_TAG) in _LYING else (width, height)


def upright_rgb(image: Image.Image) -> Image.Image:
    """`image` (its first frame) as 8-bit RGB, turned and mirrored as its EXIF orientation says.

    Transparent parts show white, as a browser shows them on an empty page. 16-bit grey keeps its upper 8
    bits, as 16-bit colour does in Pillow. CMYK becomes RGB by the plain rule (ink absorbs light); JPEG files with
    Adobe's marker hold it inverted. Colour profiles are ignored.

    Raises PictureError for pixels that are 32-bit numbers: nothing says which range they span.
    """
    file_format = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise PictureError("its pixels are 32-bit numbers of unknown range; convert it to 8 or 16 bits")
    elif image.mode == "CMYK" and file_format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for Adobe's inverted kind
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", image.size, _BACKGROUND)
        image.alpha_composite(layer)
    return image.convert("RGB")


def _fits_as_it_is(image: Image.Image, data: bytes, max_side: int | None) -> bool:
    """Whether `data` is an upright colour JPEG, small enough, that any libjpeg reads as RGB."""
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and image.info.get("adobe_transform", 1) == 1
        and (max_side is None or max(image.size) <= max_side)
        and image.getexif().get(_ORIENTATION_TAG) not in _TURNED
        and _is_common_jpeg(data)
    )


def _is_common_jpeg(data: bytes) -> bool:
    """Whether the frame header says baseline, extended or progressive Huffman, 8 bits, three components.

    Pillow's libjpeg also reads kinds (arithmetic, lossless) that the one behind FFCV may not.
    The markers are those of ITU-T T.81, table B.1.
    """
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker <= 0xC2 and data[position + 4] == 8 and data[position + 9] == 3
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _encode_jpeg(rgb: Image.Image, encoding: Encoding) -> tuple[bytes, bytes]:
    """A JPEG file, and the index of its restart markers, if it is to have them."""
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=encoding.jpeg_quality, comment=b"")  # else the source's comment is copied
    return _core.add_restarts(buffer.getvalue()) if encoding.restart else (buffer.getvalue(), b"")


def _histogram(rgb: Image.Image) -> NDArray[np.int64]:
    return np.array(rgb.histogram(), np.int64).reshape(3, 256)

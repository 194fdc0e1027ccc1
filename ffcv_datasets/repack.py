"""Copies a .beton file, and gives it further levels, restart markers and checksums: no image is compressed again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_format import POINTING, RAW
from ffcv_datasets.beton_writer import Layout, Value
from ffcv_datasets.card import Card, read_card
from ffcv_datasets.picture import Encoding, PictureError, StoredPicture, store_jpeg, store_rgb
from ffcv_datasets.samples import BadImage, StoredSample
from ffcv_datasets.staging import WriteError
from ffcv_datasets.write import COMMIT_BYTES, BadImagesError, Progress, write_betons

_OF_THE_SOURCE = (
    "source",
    "recipe",
    "num_skipped",
    "classes",
    "samples_per_class",
    "channel_mean",
    "channel_std",
    "max_side",
    "jpeg_quality",
    "share_jpeg",
    "num_kept",
    "mask_bytes",
    "pixels_per_value",
    "categories",
    "boxes_per_category",
)
"""What a copy's card says as its source's does."""


class DamagedSamplesError(WriteError):
    """A file cannot be copied; `samples` holds everything that is damaged in it."""

    def __init__(self, source: Path, samples: Sequence[BadImage]) -> None:
        super().__init__(source, tuple(samples))
        self.source, self.samples = source, tuple(samples)

    def __str__(self) -> str:
        count = "1 sample is" if len(self.samples) == 1 else f"{len(self.samples):,} samples are"
        return f"{self.source}: {count} damaged; copy the file again from a good one, or write it again"


def repack(
    source: Path,
    target: Path,
    *,
    sides: Sequence[int] | None = None,
    restart: bool = False,
    jpeg_quality: int = 90,
    num_workers: int = 1,
    force: bool = False,
    commit_bytes: int = COMMIT_BYTES,
    on_progress: Progress = lambda done, total: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Card | None:
    """Write `source`, by whomever, as `target`, whole or not at all; returns the card written beside it.

    `sides` are the longest sides of further levels, falling; those that no image exceeds are passed over. Levels and
    restart markers that `source` has are made again if nothing else is asked for. All field types are copied; there
    is a card where exactly one field is an image and at most one an int. A copy that was cut short is gone on with.

    Raises BetonError, DamagedSamplesError, ValueError for sides that do not fall, and what write_betons raises.
    """
    with Beton(source) as beton:
        encoding = _encoding(beton, sides, restart, jpeg_quality)
        try:
            (written,) = write_betons(
                [(target, _BetonSamples(beton))],
                encoding,
                num_workers=num_workers,
                force=force,
                commit_bytes=commit_bytes,
                on_progress=on_progress,
                on_note=on_note,
            )
        except BadImagesError as error:
            raise DamagedSamplesError(source, error.images) from error
    return written.card


def _encoding(beton: Beton, sides: Sequence[int] | None, restart: bool, jpeg_quality: int) -> Encoding:
    if sides is None:
        sides = beton.footer.sides if beton.footer else ()
    first_levels = [beton.levels(name)[0] for name, kind in beton.fields.items() if kind == "image"]
    longest = max(
        (int(level[side].max(initial=0)) for level in first_levels for side in ("height", "width")), default=0
    )
    whole = Encoding(
        further_sides=tuple(sides),
        restart=restart or any((level["index_size"] > 0).any() for level in first_levels),
        jpeg_quality=jpeg_quality,
    )
    return replace(whole, further_sides=tuple(side for side in sides if side < longest))


class _BetonSamples:
    """The samples of a file."""

    notes: Final[tuple[str, ...]] = ()

    def __init__(self, beton: Beton) -> None:
        self.layout = Layout(beton.descriptors)
        status = os.fstat(beton.fileno())
        self._stamp = f"{beton.path.name} {status.st_size} {status.st_mtime_ns}"
        self._beton = beton

    @property
    def told(self) -> dict[str, Any]:
        before = read_card(self._beton.path)
        if before:
            return {name: getattr(before, name) for name in _OF_THE_SOURCE}
        return {"source": self._beton.path.stem, "jpeg_quality": None}

    def __len__(self) -> int:
        return self._beton.num_samples

    def item(self, index: int) -> _BetonItem:
        beton, values, field = self._beton, dict[str, Any](), ""
        try:
            for field, kind in beton.fields.items():
                if kind == "image":
                    images, (data, _) = beton.images(field), beton.level_bytes(index, 0, field)
                    size = (int(images.widths[index]), int(images.heights[index]))
                    values[field] = _Image(data, size, bool(images.mode[index] == RAW))
                else:
                    values[field] = beton.stored_bytes(field, index) if kind in POINTING else beton.value(field, index)
        except BetonError as error:
            raise PictureError(f"{field}: {error.problem}") from error
        return _BetonItem(f"sample {index}", self._stamp, values)


@dataclass(frozen=True)
class _Image:
    """An image as the file holds it."""

    data: bytes
    size: tuple[int, int]
    is_raw: bool


@dataclass(frozen=True)
class _BetonItem:
    name: str
    stamp: str
    """Of the file that it comes from."""
    values: dict[str, _Image | bytes | int | float]

    def identity(self) -> str:
        return self.stamp

    def store(self, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        values: dict[str, Value] = {}
        for field, value in self.values.items():
            try:
                values[field] = _picture(value, encoding) if isinstance(value, _Image) else value
            except PictureError as error:
                raise PictureError(f"{field}: {error}") from error
        return StoredSample(values=values)


def _picture(stored: _Image, encoding: Encoding) -> StoredPicture:
    if stored.is_raw:
        return store_rgb(Image.frombytes("RGB", stored.size, stored.data), encoding, as_jpeg=False)
    try:
        image = Image.open(io.BytesIO(stored.data), formats=["JPEG"])
        rgb = image.convert("RGB")
    except Exception as error:  # Pillow's parsers raise whatever the damaged bytes lead them into
        raise PictureError(f"damaged: {str(error) or type(error).__name__}") from error
    if rgb.size != stored.size:
        sizes = f"{rgb.width} x {rgb.height} pixels, the file's table says {stored.size[0]} x {stored.size[1]}"
        raise PictureError(f"the JPEG is {sizes}")
    return store_jpeg(stored.data, rgb, encoding) if image.mode != "CMYK" else _as_it_is(stored.data, rgb, encoding)


def _as_it_is(data: bytes, rgb: Image.Image, encoding: Encoding) -> StoredPicture:
    """Four inks: what they mean hangs on markers that a copy with restart markers does not keep."""
    return replace(store_rgb(rgb, encoding, as_jpeg=False), data=data, is_jpeg=True, is_kept=True)

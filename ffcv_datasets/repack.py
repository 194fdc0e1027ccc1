"""Copies a .beton file, and gives it further levels, restart markers and checksums: no image is compressed again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_format import RAW
from ffcv_datasets.beton_writer import PAGE_BYTES, BetonWriter, Layout, fits
from ffcv_datasets.card import Card, read_card
from ffcv_datasets.in_order import in_order
from ffcv_datasets.picture import Encoding, PictureError, StoredPicture, store_jpeg, store_rgb
from ffcv_datasets.staging import WriteError, check_target, durable_file, publish, temporary_path
from ffcv_datasets.tally import Tally
from ffcv_datasets.write import BadImage, Progress

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


@dataclass(frozen=True)
class _Stored:
    """One sample's fields: pictures, and the bytes of other fields that store some."""

    pictures: dict[str, StoredPicture]
    others: dict[str, bytes]


def repack(
    source: Path,
    target: Path,
    *,
    sides: Sequence[int] | None = None,
    restart: bool = False,
    jpeg_quality: int = 90,
    num_threads: int = 1,
    force: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Card | None:
    """Write `source`, by whomever, as `target`, whole or not at all; returns the card written beside it.

    `sides` are the longest sides of further levels, falling; those that no image exceeds are passed over. Levels and
    restart markers that `source` has are made again if nothing else is asked for. All field types are copied; there
    is a card where exactly one field is an image and one an int.

    Raises BetonError, DamagedSamplesError, WriteError for a target that is taken (unless `force`), ValueError for
    sides that do not fall, OSError.
    """
    check_target(target, force=force)
    with Beton(source) as beton, ExitStack() as cleanup:
        encoding = _encoding(beton, sides, restart, jpeg_quality)
        temporary = temporary_path(target)
        cleanup.callback(temporary.unlink, missing_ok=True)
        tally = _copy(beton, temporary, encoding, num_threads, on_progress)
        card = _card(tally, source, temporary, encoding) if tally else None
        publish(temporary, target, card)
    return card


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


def _copy(beton: Beton, target: Path, encoding: Encoding, num_threads: int, on_progress: Progress) -> Tally | None:
    """Write all samples; returns what to tell on a card, None if a card could not tell it."""
    images = tuple(name for name, kind in beton.fields.items() if kind == "image")
    labels = [name for name, kind in beton.fields.items() if kind == "int"]
    layout = Layout(beton.descriptors, beton.metadata.dtype, images)
    tally = Tally() if len(images) == len(labels) == 1 and beton.num_samples else None
    damaged: list[BadImage] = []
    read = in_order(partial(_read, beton, encoding), beton.num_samples, num_threads)
    with closing(read), durable_file(target) as file:
        writer = BetonWriter(file, capacity=beton.num_samples, sides=encoding.further_sides, layout=layout)
        for sample, stored in enumerate(read):
            if isinstance(stored, BadImage):
                damaged.append(stored)
            elif not damaged:
                writer.add_row(_place(beton, writer, sample, stored))
                if tally:
                    tally.count(stored.pictures[images[0]], int(beton.column(labels[0])[sample]))
            on_progress(sample + 1, beton.num_samples)
        if damaged:
            raise DamagedSamplesError(beton.path, damaged)
        writer.finish()
    return tally


def _read(beton: Beton, encoding: Encoding, sample: int) -> _Stored | BadImage:
    pictures: dict[str, StoredPicture] = {}
    others: dict[str, bytes] = {}
    for name, kind in beton.fields.items():
        try:
            if kind == "image":
                pictures[name] = _read_picture(beton, encoding, sample, name)
                _require_fit(fits(pictures[name]))
            elif kind not in ("int", "float"):
                others[name] = beton.stored_bytes(name, sample)
                _require_fit(len(others[name]) <= PAGE_BYTES)
        except BetonError as error:
            return BadImage(f"sample {sample}, {name}", error.problem)
        except PictureError as error:
            return BadImage(f"sample {sample}, {name}", str(error))
    return _Stored(pictures, others)


def _read_picture(beton: Beton, encoding: Encoding, sample: int, field: str) -> StoredPicture:
    data, _ = beton.level_bytes(sample, 0, field)
    images = beton.images(field)
    size = (int(images.widths[sample]), int(images.heights[sample]))
    if images.mode[sample] == RAW:
        return store_rgb(Image.frombytes("RGB", size, data), encoding, as_jpeg=False)
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        rgb = image.convert("RGB")
    except Exception as error:  # Pillow's parsers raise whatever the damaged bytes lead them into
        raise PictureError(f"damaged: {str(error) or type(error).__name__}") from error
    if rgb.size != size:
        raise PictureError(
            f"the JPEG is {rgb.width} x {rgb.height} pixels, the file's table says {size[0]} x {size[1]}"
        )
    return store_jpeg(data, rgb, encoding) if image.mode != "CMYK" else _as_it_is(data, rgb, encoding)


def _require_fit(does: bool) -> None:
    if not does:
        raise PictureError(f"takes more than the {PAGE_BYTES:,} bytes of a page")


def _as_it_is(data: bytes, rgb: Image.Image, encoding: Encoding) -> StoredPicture:
    """Four inks: what they mean hangs on markers that a copy with restart markers does not keep."""
    return replace(store_rgb(rgb, encoding, as_jpeg=False), data=data, is_jpeg=True, is_kept=True)


def _place(beton: Beton, writer: BetonWriter, sample: int, stored: _Stored) -> dict[str, Any]:
    """Store a sample's data; returns its row of metadata."""
    row: dict[str, Any] = {}
    for name, kind in beton.fields.items():
        if kind == "image":
            row[name] = writer.place_picture(name, stored.pictures[name])
        elif name in stored.others:
            data = stored.others[name]
            offset = writer.place(data)
            row[name] = (offset, len(data)) if kind in ("bytes", "json") else offset
        else:
            row[name] = beton.column(name)[sample]
    return row


def _card(tally: Tally, source: Path, written: Path, encoding: Encoding) -> Card:
    card = tally.card(written, encoding, source=source.stem, recipe=None, classes=None, num_skipped=0)
    before = read_card(source)
    told = {name: getattr(before, name) for name in _OF_THE_SOURCE} if before else {"jpeg_quality": None}
    return card.model_copy(update=told)

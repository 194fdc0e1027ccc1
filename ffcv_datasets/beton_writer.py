"""Lays samples out in FFCV's file format (version 2), in their order: the same samples give the same bytes.

FFCV's own DatasetWriter orders pages by which process fills them first, waits forever for a process that
died, and takes six seconds to import. With one process it writes, byte for byte, the pages that are written here.

    header | one descriptor per field | metadata: one row per sample | pages of data | levels.py | allocation table
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets import levels
from ffcv_datasets.beton_format import ALLOCATION, DESCRIPTOR, HEADER, JPEG, METADATA, RAW, VERSION
from ffcv_datasets.picture import StoredPicture

PAGE_BYTES: Final = 8 << 20
"""FFCV's page size. No picture crosses the end of a page, since FFCV may read files page by page."""

_INT, _RGB_IMAGE = 1, 2


@dataclass(frozen=True)
class Layout:
    """The fields of a file, as its tables hold them."""

    descriptors: NDArray[Any]
    sample: np.dtype[Any]
    """A row of the metadata."""
    images: tuple[str, ...]
    """Which of the fields are images."""


PICTURE_AND_LABEL: Final = Layout(
    np.array([(_RGB_IMAGE, b"image", b""), (_INT, b"label", b"")], DESCRIPTOR),
    np.dtype([("image", METADATA["image"]), ("label", "<i8")], align=True),
    ("image",),
)


class BetonWriter:
    """Writes samples into an empty, seekable file; `finish` makes it a .beton file.

    `capacity` is the largest number of samples there will be. With fewer the file is as valid; only the gap
    between its tables and its first page may be larger. Further levels lie in pages of their own.
    """

    def __init__(
        self, file: BinaryIO, *, capacity: int, sides: Sequence[int] = (), layout: Layout = PICTURE_AND_LABEL
    ) -> None:
        """`sides` are those of the further levels, falling."""
        self.num_samples = 0
        self._file, self._layout, self._sides = file, layout, tuple(sides)
        self._samples = np.zeros(capacity, layout.sample)
        self._levels = {name: np.zeros((1 + len(sides), capacity), levels.LEVEL) for name in layout.images}
        self._allocations: list[tuple[int, int, int]] = []
        self._next_page = _next_page(HEADER.itemsize + layout.descriptors.nbytes + self._samples.nbytes)
        self._ends: list[int | None] = [None] * (1 + len(sides))

    def add(self, picture: StoredPicture, label: int) -> None:
        """Add a sample of PICTURE_AND_LABEL."""
        self.add_row({"image": self.place_picture("image", picture), "label": label})

    def add_row(self, row: dict[str, Any]) -> None:
        """Finish a sample by its row of metadata, whose offsets are those that `place` has given."""
        for name, value in row.items():
            self._samples[name][self.num_samples] = value
        self.num_samples += 1

    def place_picture(self, field: str, picture: StoredPicture) -> tuple[int, int, int, int]:
        """Store the sample's picture and its levels; returns its metadata."""
        assert fits(picture)
        rows = self._levels[field][:, self.num_samples]
        offset = self.place(picture.data, picture.index)
        for number, level in enumerate(picture.levels):
            if level is None:
                continue
            at = offset if number == 0 else self._append(number, level.data + level.index)
            checksum = levels.checksum(level.data + level.index)
            rows[number] = (at, checksum, len(level.data), len(level.index), level.height, level.width)
        return (JPEG if picture.is_jpeg else RAW, picture.width, picture.height, offset)

    def place(self, data: bytes, behind: bytes = b"") -> int:
        """Store data of the sample, and something behind it that FFCV does not see; returns the offset."""
        offset = self._append(0, data + behind)
        self._allocations.append((self.num_samples, offset, len(data)))
        return offset

    def finish(self) -> None:
        """Fill the last pages and write the tables."""
        for level in range(len(self._ends)):
            self._fill_page(level)
        layout, count = self._layout, self.num_samples
        rows = np.concatenate([self._levels[name][:, :count].ravel() for name in layout.images] or [_NO_LEVELS])
        levels_at = self._next_page
        allocations_at = levels_at + rows.nbytes + levels.FOOTER_BYTES
        header = np.array([(VERSION, len(layout.descriptors), PAGE_BYTES, count, allocations_at)], HEADER)
        allocations = np.array(self._allocations, ALLOCATION)
        samples = self._samples[:count]
        footer = levels.Footer(
            num_fields=len(layout.images),
            sides=self._sides,
            levels_at=levels_at,
            levels_checksum=levels.checksum(rows),
            tables_checksum=levels.tables_checksum((header, layout.descriptors, samples, allocations)),
        )
        self._file.seek(levels_at)
        self._file.write(rows.tobytes() + footer.to_bytes() + allocations.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + layout.descriptors.tobytes() + samples.tobytes())
        self._file.seek(0, os.SEEK_END)

    def _append(self, level: int, data: bytes) -> int:
        """Store data in the level's page, or in a new one if that has no room; returns the offset."""
        assert len(data) <= PAGE_BYTES
        offset = self._ends[level]
        if offset is None or -offset % PAGE_BYTES < len(data):
            self._fill_page(level)
            offset = self._next_page
            self._next_page += PAGE_BYTES
        self._ends[level] = offset + len(data)
        self._file.seek(offset)
        self._file.write(data)
        return offset

    def _fill_page(self, level: int) -> None:
        """Leave no hole, so that a disk that is too full is noticed while writing."""
        end = self._ends[level]
        if end is not None:
            self._file.seek(end)
            self._file.write(bytes(-end % PAGE_BYTES))


_NO_LEVELS = np.zeros(0, levels.LEVEL)


def fits(picture: StoredPicture) -> bool:
    """Whether one page can hold it, and one page each of its levels."""
    return all(len(level.data) + len(level.index) <= PAGE_BYTES for level in picture.levels if level)


def _next_page(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES

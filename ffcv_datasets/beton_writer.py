"""Lays samples out in FFCV's file format (version 2), in their order: the same samples give the same bytes.

FFCV's own DatasetWriter orders pages by which process fills them first, waits forever for a process that
died, and takes six seconds to import. With one process it writes, byte for byte, the pages that are written here.

    header | one descriptor per field | metadata: one row per sample | pages of data | levels.py | allocation table
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets import levels
from ffcv_datasets.beton_format import (
    ALLOCATION,
    DESCRIPTOR,
    HEADER,
    JPEG,
    METADATA,
    NDARRAY_ARGUMENTS,
    POINTING,
    RAW,
    TYPES,
    VERSION,
)
from ffcv_datasets.picture import StoredPicture

PAGE_BYTES: Final = 8 << 20
"""FFCV's page size. No value crosses the end of a page, since FFCV may read files page by page."""

Value = StoredPicture | bytes | int | float
"""What a sample has in a field: a picture, the number of an int or float field, the bytes of any other."""


@dataclass(frozen=True)
class Layout:
    """The fields of a file."""

    descriptors: NDArray[Any]
    """As its table holds them."""

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The type of each field by its name."""
        return {row["name"].decode("ascii", "replace"): TYPES[int(row["type_id"])] for row in self.descriptors}

    def of(self, *kinds: str) -> tuple[str, ...]:
        """The names of the fields of these types."""
        return tuple(name for name, kind in self.kinds.items() if kind in kinds)

    @cached_property
    def row(self) -> np.dtype[Any]:
        """A sample's row of the metadata."""
        return np.dtype([(name, METADATA[kind]) for name, kind in self.kinds.items()], align=True)


def layout(fields: Mapping[str, str | tuple[np.dtype[Any], tuple[int, ...]]]) -> Layout:
    """The layout with fields of these types; of an ndarray its element type and its shape are given instead."""
    type_ids = {kind: number for number, kind in TYPES.items()}
    rows = np.zeros(len(fields), DESCRIPTOR)
    for row, (name, kind) in zip(rows, fields.items(), strict=True):
        row["name"] = name.encode("ascii")
        row["type_id"] = type_ids[kind if isinstance(kind, str) else "ndarray"]
        row["arguments"] = b"" if isinstance(kind, str) else _ndarray_arguments(*kind)
    return Layout(rows)


def _ndarray_arguments(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    description = json.dumps(dtype.descr).encode("ascii")
    arguments = np.zeros((), NDARRAY_ARGUMENTS)
    arguments["shape"][: len(shape)], arguments["dtype_length"] = shape, len(description)
    return arguments.tobytes() + description


PICTURE_AND_LABEL: Final = layout({"image": "image", "label": "int"})


class BetonWriter:
    """Writes samples into an empty, seekable file; `finish` makes it a .beton file.

    `capacity` is the largest number of samples there will be. With fewer the file is as valid; only the gap
    between its tables and its first page may be larger. Further levels lie in pages of their own.
    """

    num_samples: int
    num_bytes: int
    """Of values, as far as they were written."""

    def __init__(
        self, file: BinaryIO, *, capacity: int, sides: Sequence[int] = (), layout: Layout = PICTURE_AND_LABEL
    ) -> None:
        """`sides` are those of the further levels, falling."""
        self.num_samples = self.num_bytes = 0
        self.layout = layout
        self._file, self._sides = file, tuple(sides)
        self._rows = np.zeros(capacity, layout.row)
        self._levels = {name: np.zeros((capacity, 1 + len(sides)), levels.LEVEL) for name in layout.of("image")}
        self._checksums = {name: np.zeros(capacity, levels.CHECKSUM) for name in layout.of(*POINTING)}
        self._allocations: list[tuple[int, int, int]] = []
        self._next_page = _next_page(HEADER.itemsize + layout.descriptors.nbytes + self._rows.nbytes)
        self._ends: list[int | None] = [None] * (1 + len(sides))
        self._told = (0, 0)

    def add(self, values: Mapping[str, Value]) -> None:
        """Add a sample by its value in each field."""
        row = self._rows[self.num_samples]
        for name, kind in self.layout.kinds.items():
            value = values[name]
            if isinstance(value, StoredPicture):
                row[name] = self._place_picture(name, value)
            elif isinstance(value, bytes):
                offset = self._place(value)
                row[name] = (offset, len(value)) if kind in ("bytes", "json") else offset
                self._checksums[name][self.num_samples] = levels.checksum(value)
            else:
                row[name] = value
        self.num_samples += 1

    def rows(self) -> NDArray[Any]:
        """The metadata of the samples so far."""
        return self._rows[: self.num_samples]

    def level_rows(self, field: str) -> NDArray[Any]:
        """(num_samples, levels): rows of levels.LEVEL of an image field."""
        return self._levels[field][: self.num_samples]

    def _place_picture(self, field: str, picture: StoredPicture) -> tuple[int, int, int, int]:
        """Store the sample's picture and its levels; returns its metadata."""
        assert fits(picture)
        rows = self._levels[field][self.num_samples]
        offset = self._place(picture.data, picture.index)
        for number, level in enumerate(picture.levels):
            if level is None:
                continue
            stored = level.data + level.index
            at = offset if number == 0 else self._append(number, stored)
            checksum = levels.checksum(stored)
            rows[number] = (at, checksum, len(level.data), len(level.index), level.height, level.width)
        return (JPEG if picture.is_jpeg else RAW, picture.width, picture.height, offset)

    def _place(self, data: bytes, behind: bytes = b"") -> int:
        """Store data of the sample, and something behind it that FFCV does not see; returns the offset."""
        offset = self._append(0, data + behind)
        self._allocations.append((self.num_samples, offset, len(data)))
        return offset

    def changes(self) -> dict[str, NDArray[Any]]:
        """What the calls since the last one of this have changed in the tables, to be replayed by another writer."""
        (first, first_allocation), end = self._told, self.num_samples
        self._told = (end, len(self._allocations))
        return {
            "rows": self._rows[first:end],
            "allocations": np.array(self._allocations[first_allocation:], ALLOCATION),
            "pages": np.array([self._next_page, *(-1 if end is None else end for end in self._ends)], np.int64),
            **{f"levels {name}": rows[first:end] for name, rows in self._levels.items()},
            **{f"checksums {name}": values[first:end] for name, values in self._checksums.items()},
        }

    def replay(self, changes: Mapping[str, NDArray[Any]]) -> None:
        """Go on from where a writer with the same arguments, and the same file, was."""
        first, end = self.num_samples, self.num_samples + len(changes["rows"])
        self._rows[first:end] = changes["rows"]
        for name in self._levels:
            self._levels[name][first:end] = changes[f"levels {name}"]
        for name in self._checksums:
            self._checksums[name][first:end] = changes[f"checksums {name}"]
        self._allocations += changes["allocations"].tolist()
        self._next_page, *ends = changes["pages"].tolist()
        self._ends = [None if end < 0 else end for end in ends]
        self.num_samples = end
        self._told = (end, len(self._allocations))

    def finish(self) -> None:
        """Fill the last pages and write the tables."""
        for level in range(len(self._ends)):
            self._fill_page(level)
        count = self.num_samples
        further = b"".join(
            [self.level_rows(name).T.tobytes() for name in self._levels]
            + [checksums[:count].tobytes() for checksums in self._checksums.values()]
        )
        levels_at = self._next_page
        allocations_at = levels_at + len(further) + levels.FOOTER_BYTES
        descriptors, rows = self.layout.descriptors, self.rows()
        header = np.array([(VERSION, len(descriptors), PAGE_BYTES, count, allocations_at)], HEADER)
        allocations = np.array(self._allocations, ALLOCATION)
        footer = levels.Footer(
            num_fields=len(self._levels),
            sides=self._sides,
            levels_at=levels_at,
            levels_checksum=levels.checksum(further),
            tables_checksum=levels.tables_checksum((header, descriptors, rows, allocations)),
        )
        self._file.seek(levels_at)
        self._file.write(further + footer.to_bytes() + allocations.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + descriptors.tobytes() + rows.tobytes())
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
        self.num_bytes += len(data)
        self._file.seek(offset)
        self._file.write(data)
        return offset

    def _fill_page(self, level: int) -> None:
        """Leave no hole, so that a disk that is too full is noticed while writing."""
        end = self._ends[level]
        if end is not None:
            self._file.seek(end)
            self._file.write(bytes(-end % PAGE_BYTES))


def fits(value: Value) -> bool:
    """Whether one page can hold it; of a picture, one page each of its levels."""
    if isinstance(value, StoredPicture):
        return all(len(level.data) + len(level.index) <= PAGE_BYTES for level in value.levels if level)
    return not isinstance(value, bytes) or len(value) <= PAGE_BYTES


def _next_page(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES

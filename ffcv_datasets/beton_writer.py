"""Lays samples out in FFCV's file format (version 2), in their order: the same samples give the same bytes.

FFCV's own DatasetWriter orders pages by which process fills them first, waits forever for a process that
died, and takes six seconds to import. With one process it writes, byte for byte, what is written here.

    header | one descriptor per field | metadata: one row per sample | pages of data | allocation table
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

from ffcv_datasets.beton import JPEG, RAW
from ffcv_datasets.picture import StoredPicture

PAGE_BYTES = 8 << 20
"""FFCV's page size. No picture crosses the end of a page, since FFCV may read files page by page."""

_VERSION = 2
_INT, _RGB_IMAGE = 1, 2
_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("allocations_at", "<u8"),
    ]
)
_DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "S16"), ("arguments", "V1024")])
_ALLOCATION = np.dtype([("sample", "<u8"), ("offset", "<u8"), ("size", "<u8")])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("offset", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8")], align=True)

_DESCRIPTORS = np.array([(_RGB_IMAGE, b"image", b""), (_INT, b"label", b"")], _DESCRIPTOR)
_SAMPLES_AT = _HEADER.itemsize + _DESCRIPTORS.nbytes


class BetonWriter:
    """Writes pictures and labels into an empty, seekable file; `finish` makes it a .beton file.

    `capacity` is the largest number of samples there will be. With fewer the file is as valid; only the gap
    between its tables and its first page may be larger.
    """

    def __init__(self, file: BinaryIO, *, capacity: int) -> None:
        self.num_samples = 0
        self._file = file
        self._samples = np.zeros(capacity, _SAMPLE)
        self._allocations = np.zeros(capacity, _ALLOCATION)
        self._end = _next_page(_SAMPLES_AT + self._samples.nbytes)
        file.seek(self._end)

    def add(self, picture: StoredPicture, label: int) -> None:
        size = len(picture.data)
        assert fits(picture)
        if self._end % PAGE_BYTES + size > PAGE_BYTES:
            self._start_page()
        mode = JPEG if picture.is_jpeg else RAW
        self._samples[self.num_samples] = ((mode, picture.width, picture.height, self._end), label)
        self._allocations[self.num_samples] = (self.num_samples, self._end, size)
        self._file.write(picture.data)
        self._end += size
        self.num_samples += 1

    def finish(self) -> None:
        """Fill the last page and write the tables."""
        self._start_page()
        self._file.write(self._allocations[: self.num_samples].tobytes())
        header = np.array((_VERSION, len(_DESCRIPTORS), PAGE_BYTES, self.num_samples, self._end), _HEADER)
        self._file.seek(0)
        self._file.write(header.tobytes() + _DESCRIPTORS.tobytes())
        self._file.write(self._samples[: self.num_samples].tobytes())
        self._file.seek(0, os.SEEK_END)

    def _start_page(self) -> None:
        start = _next_page(self._end)
        self._file.write(bytes(start - self._end))
        self._end = start


def fits(picture: StoredPicture) -> bool:
    """Whether one page can hold it."""
    return len(picture.data) <= PAGE_BYTES


def _next_page(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES

"""A log of tables, record after record; a record that was cut short by a crash is as if it had never been begun."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.levels import checksum

Record = Mapping[str, NDArray[Any]]

_HEAD = struct.Struct("<QQ")
"""Bytes of a record, and their XXH64."""


def append(file: BinaryIO, record: Record) -> None:
    """Add a record to the end of a log; it is on disk when this returns."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(record)
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    file.write(_HEAD.pack(len(data), checksum(data)) + data)
    file.flush()
    os.fsync(file.fileno())


def read(file: BinaryIO) -> list[Record]:
    """All whole records, and what lies behind them cut off: the log can be added to."""
    records: list[Record] = []
    file.seek(0)
    while True:
        end = file.tell()
        head = file.read(_HEAD.size)
        size, its_checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        data = file.read(size)
        if not data or len(data) != size or checksum(data) != its_checksum:
            break
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            records.append(dict(arrays))
    file.seek(end)
    file.truncate()
    return records

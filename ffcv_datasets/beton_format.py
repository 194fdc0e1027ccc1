"""The tables of FFCV's file format, .beton version 2, as reader and writer share them. Little-endian throughout.

header | one descriptor per field | metadata: one row per sample | pages of data | allocation table
"""

from __future__ import annotations

import numpy as np

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("allocations_at", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "<u1"), ("name", "S16"), ("arguments", "V1024")])
ALLOCATION = np.dtype([("sample", "<u8"), ("offset", "<u8"), ("size", "<u8")])
NDARRAY_ARGUMENTS = np.dtype([("shape", "<u8", 32), ("dtype_length", "<u8")])
"""Followed by the element type, as JSON of numpy's description."""

_BYTES = np.dtype([("offset", "<u8"), ("size", "<u8")])
METADATA = {
    "float": np.dtype("<f8"),
    "int": np.dtype("<i8"),
    "image": np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("offset", "<u8")]),
    "bytes": _BYTES,
    "ndarray": np.dtype("<u8"),
    "json": _BYTES,
    "torch_tensor": np.dtype("<u8"),
}
TYPES = dict(enumerate(METADATA))  # FFCV numbers its types in this order
POINTING = frozenset(("bytes", "ndarray", "json", "torch_tensor"))
"""Types other than images whose values lie in the pages."""

JPEG, RAW = 0, 1
"""How an image is stored: as a JPEG file, or as height x width x 3 bytes of RGB."""

"""What Resolute adds to a .beton file: further levels, restart indexes, checksums.

    ... pages of data | pages of further levels | one table per image field and level
    | one table of checksums per other field that points into the pages | footer | allocation table

FFCV follows its own tables alone, so it never looks here. A restart index stands behind its JPEG, in the page.
A further level is the picture at a smaller size, as a JPEG; pictures that are no larger have none, nor have raw ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets._decode import _core

VERSION: Final = 1
MAGIC: Final = b"RESOLUTE"
MAX_LEVELS: Final = 8

LEVEL: Final = np.dtype(
    [
        ("offset", "<u8"),
        ("checksum", "<u8"),
        ("size", "<u8"),
        ("index_size", "<u4"),
        ("height", "<u2"),
        ("width", "<u2"),
    ]
)
"""A stored image: bytes and bytes of index behind them, XXH64 of both; its pixels. Size 0: there is none."""

CHECKSUM: Final = np.dtype("<u8")
"""XXH64 of what a sample stores of a field that is no image."""

_FOOTER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("num_fields", "<u4"),
        ("sides", "<u4", MAX_LEVELS),
        ("levels_at", "<u8"),
        ("levels_checksum", "<u8"),
        ("tables_checksum", "<u8"),
        ("footer_checksum", "<u8"),
    ]
)
FOOTER_BYTES: Final = _FOOTER.itemsize


class LevelsError(ValueError):
    """An addition to a file that is damaged or not known here; the message says why."""


@dataclass(frozen=True)
class Footer:
    num_fields: int
    """Image fields."""
    sides: tuple[int, ...]
    """The longest side of each further level, in pixels, falling."""
    levels_at: int
    levels_checksum: int
    """Of all the tables that lie there."""
    tables_checksum: int
    """Of header, descriptors, metadata and allocation table, in this order."""

    @property
    def num_levels(self) -> int:
        """The first one included."""
        return 1 + len(self.sides)

    def to_bytes(self) -> bytes:
        row = np.zeros((), _FOOTER)
        row["magic"], row["version"], row["num_fields"] = MAGIC, VERSION, self.num_fields
        row["sides"][: len(self.sides)] = self.sides
        row["levels_at"], row["levels_checksum"] = self.levels_at, self.levels_checksum
        row["tables_checksum"] = self.tables_checksum
        row["footer_checksum"] = _footer_checksum(row)
        return row.tobytes()


def _footer_checksum(row: NDArray[Any]) -> int:
    """Of what lies between magic and checksum, so that either tells a footer of which the other is damaged."""
    return checksum(row.tobytes()[len(MAGIC) : -8])


def read_footer(data: bytes) -> Footer | None:
    """The footer in the FOOTER_BYTES before the allocation table; None where something else is there.

    Raises LevelsError for a newer version and for damage.
    """
    row = np.frombuffer(data, _FOOTER, 1)[0]
    is_marked, is_whole = row["magic"] == MAGIC, row["footer_checksum"] == _footer_checksum(row)
    if not (is_marked or is_whole):
        return None
    if row["version"] > VERSION:
        raise LevelsError(
            f"has levels or checksums of a newer Resolute (version {row['version']}, this one reads {VERSION}); "
            "upgrade resolute"
        )
    if not (is_marked and is_whole):
        raise LevelsError("is damaged: the footer of its levels is not as it was written")
    sides = tuple(int(side) for side in row["sides"] if side)
    return Footer(
        int(row["num_fields"]),
        sides,
        int(row["levels_at"]),
        int(row["levels_checksum"]),
        int(row["tables_checksum"]),
    )


def checksum(data: bytes | NDArray[Any]) -> int:
    """XXH64 of the bytes, or of a contiguous array's."""
    return _core.checksum(data)


def tables_checksum(tables: Sequence[bytes | NDArray[Any]]) -> int:
    """Of header, descriptors, metadata and allocation table."""
    return checksum(np.array([checksum(table) for table in tables], "<u8"))


def only_level(
    offsets: NDArray[np.uint64], sizes: NDArray[np.uint64], heights: NDArray[np.int32], widths: NDArray[np.int32]
) -> NDArray[Any]:
    """LEVEL rows (N,) of the first level as FFCV's tables tell it: no checksums, no indexes."""
    rows = np.zeros(len(sizes), LEVEL)
    rows["offset"], rows["size"], rows["height"], rows["width"] = offsets, sizes, heights, widths
    return rows


def level_for(
    out_height: int,
    out_width: int,
    box_heights: NDArray[np.integer[Any]],
    box_widths: NDArray[np.integer[Any]],
    levels: Sequence[NDArray[Any]],
) -> NDArray[np.intp]:
    """(N,): the smallest level in which each box (N,) still has at least the output's pixels; else the first, 0.

    `levels` holds the LEVEL rows (N,) of each level, largest first.
    """
    first = levels[0]
    chosen = np.zeros(len(box_heights), np.intp)
    for number, level in enumerate(levels[1:], start=1):
        serves = (
            (level["size"] > 0)
            & (box_heights.astype(np.int64) * level["height"] >= out_height * first["height"].astype(np.int64))
            & (box_widths.astype(np.int64) * level["width"] >= out_width * first["width"].astype(np.int64))
        )
        chosen[serves] = number
    return chosen

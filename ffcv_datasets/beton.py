"""Reads the tables and the stored bytes of a .beton file, FFCV's format (version 2), with numpy alone.

    header | one descriptor per field | metadata: one row per sample | pages of data | allocation table

The metadata of variable-sized fields point into the pages; how long an image is, only the allocation table says.
What else Resolute's files hold, where FFCV does not look, is in levels.py.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

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

_AGAIN = "copy the file again from a good one, or write it again"


class BetonError(ValueError):
    """A file that is no .beton file, or not a whole one: says which, what is wrong and what to do."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class Images:
    """Where the N images of a field lie in the file, and how."""

    mode: NDArray[np.uint8]
    """JPEG or RAW."""
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    """In bytes."""


class Beton:
    """An open .beton file.

    Its tables are held in memory; what the samples store is read by `pread`, never through a memory map: a file
    that is cut while in use then gives an error that names the sample, where a map would end the process by SIGBUS.
    """

    path: Path
    """Of the file itself, which errors name, also where a copy of it is read."""
    copy: Path | None
    """What is read in its place."""
    num_samples: int
    fields: dict[str, str]
    """The type of each field by its name: float, int, image, bytes, ndarray, json or torch_tensor."""
    descriptors: NDArray[Any]
    """The fields, as the file describes them."""
    metadata: NDArray[Any]
    """(N,): one row of all fields for each sample."""
    footer: levels.Footer | None
    """What Resolute has added to the file."""

    def __init__(self, path: str | os.PathLike[str], *, copy: Path | None = None) -> None:
        """Read and check the tables. Raises BetonError for what is not a whole .beton file, OSError."""
        self.path, self.copy = Path(path), copy
        self._file = open(copy or self.path, "rb", buffering=0)  # noqa: SIM115  closed by close()
        try:
            self._read_tables()
        except BaseException:
            self.close()
            raise

    def _read_tables(self) -> None:
        file_size = os.fstat(self._file.fileno()).st_size
        header = self._table(HEADER, 0, 1, "header")
        if header["version"] != VERSION:
            raise BetonError(self.path, "is not a .beton file of version 2; write it with `resolute data write`")
        self.num_samples = int(header["num_samples"][0])
        allocations_at = int(header["allocations_at"][0])
        if not 0 < allocations_at <= file_size:
            raise self._incomplete("it ends before its allocation table")

        descriptors = self._table(DESCRIPTOR, HEADER.itemsize, int(header["num_fields"][0]), "field table")
        names = [descriptor["name"].decode("ascii", "replace") for descriptor in descriptors]
        if len(set(names)) < len(names):
            raise BetonError(self.path, f"has two fields of one name ({', '.join(names)}); names are cut to 16 letters")
        unknown = [name for name, row in zip(names, descriptors, strict=True) if row["type_id"] not in TYPES]
        if unknown:
            raise BetonError(
                self.path, f"field {unknown[0]!r} is of a custom type, whose layout no file tells; leave it out"
            )
        self.descriptors = descriptors
        self.fields = {name: TYPES[int(row["type_id"])] for name, row in zip(names, descriptors, strict=True)}
        self._arguments = {name: row["arguments"].tobytes() for name, row in zip(names, descriptors, strict=True)}

        layout = np.dtype([(name, METADATA[self.fields[name]]) for name in self.fields], align=True)
        metadata_at = HEADER.itemsize + descriptors.nbytes
        self.metadata = self._table(layout, metadata_at, self.num_samples, "metadata")
        self._allocations = self._read_allocations(allocations_at, file_size)
        self._images = {name: self._locate_images(name) for name, kind in self.fields.items() if kind == "image"}
        self._levels = {
            name: [levels.only_level(images.offsets, images.sizes, images.heights, images.widths)]
            for name, images in self._images.items()
        }
        self._checksums: dict[str, NDArray[Any]] = {}
        self.footer = self._read_footer(allocations_at)
        if self.footer:
            tables = (header, descriptors, self.metadata, self._allocations)
            self._read_levels(self.footer, levels.tables_checksum(tables), allocations_at)

    def _table(self, dtype: np.dtype[Any], offset: int, count: int, what: str) -> NDArray[Any]:
        """`count` rows at `offset`, read-only."""
        # Compared before reading: a damaged count must not become an allocation of that size.
        available = os.fstat(self._file.fileno()).st_size - offset
        if count * dtype.itemsize > available:
            raise self._incomplete(f"it ends within its {what}")
        return np.frombuffer(self._read(offset, count * dtype.itemsize), dtype, count)

    def _read_allocations(self, offset: int, file_size: int) -> NDArray[Any]:
        """The allocation table, which ends the file."""
        count, rest = divmod(file_size - offset, ALLOCATION.itemsize)
        if rest:
            raise self._incomplete("its allocation table is cut")
        table = self._table(ALLOCATION, offset, count, "allocation table")
        within = (table["offset"] <= offset) & (table["size"] <= offset - table["offset"])
        if not (within & (table["sample"] < self.num_samples)).all():
            raise BetonError(self.path, "is damaged: its allocation table points beyond its data; write it again")
        return table

    def _read_footer(self, allocations_at: int) -> levels.Footer | None:
        at = allocations_at - levels.FOOTER_BYTES
        try:
            return levels.read_footer(self._read(at, levels.FOOTER_BYTES)) if at > 0 else None
        except levels.LevelsError as error:
            raise BetonError(self.path, str(error)) from error

    def _read_levels(self, footer: levels.Footer, tables_checksum: int, allocations_at: int) -> None:
        """The tables of levels. The header's and the metadata's own damage shows here as well."""
        images, others = list(self._images), [name for name, kind in self.fields.items() if kind in POINTING]
        count, num_checksums = len(images) * footer.num_levels * self.num_samples, len(others) * self.num_samples
        split = count * levels.LEVEL.itemsize
        size = split + num_checksums * levels.CHECKSUM.itemsize
        if footer.levels_at + size != allocations_at - levels.FOOTER_BYTES or footer.num_fields != len(images):
            raise BetonError(self.path, "is damaged: its levels are those of another file; write it again")
        stored = self._table(np.dtype(np.uint8), footer.levels_at, size, "levels")
        if (levels.checksum(stored), tables_checksum) != (footer.levels_checksum, footer.tables_checksum):
            raise BetonError(self.path, f"is damaged: its tables are not as they were written; {_AGAIN}")
        table, checksums = np.frombuffer(stored[:split], levels.LEVEL), np.frombuffer(stored[split:], levels.CHECKSUM)
        rows = table.reshape(len(images), footer.num_levels, self.num_samples)
        self._levels = {name: list(rows[i]) for i, name in enumerate(images)}
        self._checksums = dict(zip(others, checksums.reshape(len(others), self.num_samples), strict=True))

    def _locate_images(self, name: str) -> Images:
        rows, table = self.metadata[name], self._allocations
        its_own = table[table["offset"] == rows["offset"][table["sample"]]]
        sizes, found = np.zeros(self.num_samples, np.uint64), np.zeros(self.num_samples, np.bool_)
        np.maximum.at(sizes, its_own["sample"], its_own["size"])  # an empty field may lie at the same offset
        found[its_own["sample"]] = True
        self._all_samples(found, "is not in the allocation table")
        self._all_samples((rows["height"] > 0) & (rows["width"] > 0), f"has an empty {name!r}")
        self._all_samples(np.isin(rows["mode"], (JPEG, RAW)), f"stores {name!r} in an unknown way")
        heights, widths = rows["height"].astype(np.int32), rows["width"].astype(np.int32)
        raw_size = 3 * heights.astype(np.uint64) * widths.astype(np.uint64)
        self._all_samples(
            (rows["mode"] != RAW) | (sizes == raw_size),
            f"stores another number of bytes for {name!r} than its height and width ask for",
        )
        return Images(rows["mode"].copy(), heights, widths, rows["offset"].copy(), sizes)

    def _all_samples(self, good: NDArray[np.bool_], problem: str) -> None:
        if not good.all():
            sample = int(np.argmin(good))
            raise BetonError(self.path, f"is incomplete or damaged: sample {sample} {problem}; write it again")

    def _incomplete(self, how: str) -> BetonError:
        return BetonError(self.path, f"is incomplete: {how}; its writing or copying was cut short, so do that again")

    def _read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = os.pread(self._file.fileno(), size, offset)
            if not part:
                raise self._incomplete("it was cut after it had been opened")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def fileno(self) -> int:
        """The open file, for reading at offsets."""
        return self._file.fileno()

    def only(self, kind: str) -> str:
        """The name of the one field of that type. Raises BetonError where there are none or several."""
        names = [name for name, its_kind in self.fields.items() if its_kind == kind]
        if len(names) != 1:
            listed = ", ".join(f"{name} ({its_kind})" for name, its_kind in self.fields.items())
            raise BetonError(self.path, f"has {len(names)} fields of type {kind}, not one; its fields: {listed}")
        return names[0]

    def images(self, field: str | None = None) -> Images:
        """Where the images of a field lie; of the only image field if none is named."""
        return self._images[field or self.only("image")]

    def levels(self, field: str | None = None) -> list[NDArray[Any]]:
        """Rows of levels.LEVEL (N,) for each level of a field, the first, which FFCV reads as well, included."""
        return self._levels[field or self.only("image")]

    def heights(self) -> NDArray[np.int32]:
        """(N,) in pixels, of the only image field."""
        return self.images().heights

    def widths(self) -> NDArray[np.int32]:
        """(N,) in pixels, of the only image field."""
        return self.images().widths

    def labels(self) -> NDArray[np.int64]:
        """(N,): the only int field."""
        return self.column(self.only("int")).astype(np.int64)

    def column(self, field: str) -> NDArray[Any]:
        """(N,): the field's metadata: the values of int and float fields, tables of offsets for the others."""
        column: NDArray[Any] = self.metadata[field]
        return column

    def image_bytes(self, sample: int, field: str | None = None) -> bytes:
        """The stored JPEG file or raw pixels of one sample."""
        images = self.images(field)
        return self._read(int(images.offsets[sample]), int(images.sizes[sample]))

    def level_bytes(self, sample: int, level: int, field: str | None = None) -> tuple[bytes, bytes]:
        """The image of one sample at a level, and its restart index; both empty where there is none.

        Raises BetonError where their checksum is not the one that was stored.
        """
        row = self.levels(field)[level][sample]
        size = int(row["size"])
        stored = self._read(int(row["offset"]), size + int(row["index_size"]))
        self._check(sample, stored, int(row["checksum"]))
        return stored[:size], stored[size:]

    def _check(self, sample: int, stored: bytes, checksum: int) -> None:
        """Raises BetonError where a checksum is not that of what is stored; 0 stands for none."""
        if checksum and levels.checksum(stored) != checksum:
            raise BetonError(
                self.path, f"is damaged: the bytes of sample {sample} are not those that were written; {_AGAIN}"
            )

    def value(self, field: str, sample: int) -> Any:
        """One sample's value, as was given to FFCV's writer; of an image field the stored bytes."""
        kind = self.fields[field]
        if kind in ("int", "float"):
            return self.metadata[field][sample].item()
        stored = self.stored_bytes(field, sample)
        if kind in ("ndarray", "torch_tensor"):
            dtype, shape = _ndarray_type(self._arguments[field])
            return np.frombuffer(stored, dtype).reshape(shape)
        return json.loads(stored.rstrip(b"\0")) if kind == "json" else stored

    def stored_bytes(self, field: str, sample: int) -> bytes:
        """What a sample stores outside of the metadata; int and float fields store nothing there.

        Raises BetonError where its checksum, if the file has those, is not the one that was stored.
        """
        kind, row = self.fields[field], self.metadata[field][sample]
        assert kind not in ("int", "float")
        if kind == "image":
            return self.level_bytes(sample, 0, field)[0]
        if kind in ("ndarray", "torch_tensor"):
            dtype, shape = _ndarray_type(self._arguments[field])
            stored = self._read(int(row), dtype.itemsize * int(np.prod(shape)))
        else:
            stored = self._read(int(row["offset"]), int(row["size"]))
        if field in self._checksums:
            self._check(sample, stored, int(self._checksums[field][sample]))
        return stored

    def close(self) -> None:
        """Close the file; the tables stay."""
        self._file.close()

    def __enter__(self) -> "Beton":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ndarray_type(arguments: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape from a field's arguments: 32 dimensions, unused ones 0, then the type as JSON."""
    header = np.frombuffer(arguments, NDARRAY_ARGUMENTS, 1)[0]
    start = NDARRAY_ARGUMENTS.itemsize
    [(_, element)] = json.loads(arguments[start : start + int(header["dtype_length"])])
    return np.dtype(element), tuple(int(length) for length in header["shape"] if length)

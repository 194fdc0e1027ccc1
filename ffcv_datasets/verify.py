"""Reads everything that a .beton file stores, and lists all that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_format import RAW
from ffcv_datasets.decoder import Decoder
from ffcv_datasets.picture import PictureError
from ffcv_datasets.targets import check_target

_CHUNK = 64


@dataclass(frozen=True)
class Fault:
    sample: int
    field: str
    level: int
    """0 for what FFCV reads as well."""
    reason: str

    def __str__(self) -> str:
        where = f", level {self.level}" if self.level else ""
        return f"sample {self.sample}, {self.field}{where}: {self.reason}"


def find_faults(
    beton: Beton, *, num_threads: int = 1, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Fault]:
    """Read every sample: its checksum where there is one, every JPEG decoded to its end, its size against the tables.

    `on_progress` is called with the number of samples done and the number there are. Without checksums damage that
    leaves a JPEG decodable is not found.
    """
    decoder = Decoder(num_threads)
    faults: list[Fault] = []
    for start in range(0, beton.num_samples, _CHUNK):
        samples = np.arange(start, min(start + _CHUNK, beton.num_samples))
        for field, kind in beton.fields.items():
            faults += _images(beton, decoder, samples, field) if kind == "image" else _values(beton, samples, field)
        on_progress(int(samples[-1]) + 1, beton.num_samples)
    return sorted(faults, key=lambda fault: (fault.sample, fault.field, fault.level))


def _images(beton: Beton, decoder: Decoder, samples: NDArray[np.int64], field: str) -> Iterator[Fault]:
    for level in range(len(beton.levels(field))):
        for sample, reason in decoder.examine(beton, samples, level, field).items():
            yield Fault(sample, field, level, reason)
    # Of raw pixels the decoder reads only what it shows, so it cannot check their sum.
    for sample in samples[beton.images(field).mode[samples] == RAW].tolist():
        try:
            beton.level_bytes(sample, 0, field)
        except BetonError as error:
            yield Fault(sample, field, 0, error.problem)


def _values(beton: Beton, samples: NDArray[np.int64], field: str) -> Iterator[Fault]:
    for sample in samples.tolist():
        try:
            check_target(beton, field, sample, beton.value(field, sample))
        except BetonError as error:
            yield Fault(sample, field, 0, error.problem)
        except PictureError as error:
            yield Fault(sample, field, 0, str(error))
        except (ValueError, MemoryError, OverflowError) as error:
            yield Fault(sample, field, 0, f"cannot be read: {error}")

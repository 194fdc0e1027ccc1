"""Cuts, resamples and mirrors the images of a batch: the Python face of the C core in `_decode/`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets._decode import _core
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import Boxes

_SAMPLE = np.dtype(
    [
        ("offset", np.uint64),
        ("size", np.uint64),
        ("height", np.int32),
        ("width", np.int32),
        ("top", np.int32),
        ("left", np.int32),
        ("box_height", np.int32),
        ("box_width", np.int32),
        ("mode", np.int32),
        ("flip", np.int32),
    ]
)  # struct sample in _decode/sample.h


class DataError(ValueError):
    """A sample that cannot be decoded: says which, of which file, what is wrong and what to do."""

    def __init__(self, path: Path, sample: int, reason: str) -> None:
        super().__init__(path, sample, reason)
        self.path, self.sample, self.reason = path, sample, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: sample {self.sample} cannot be decoded: {self.reason}; "
            "copy the file again from a good one, or write it again"
        )


class Decoder:
    """Threads that decode batches, started with the first batch of a process and ended with this object.

    A pixel of the result is the mean of the part of the image that it covers (an area filter) or, along an axis that
    enlarges, a bilinear interpolation within the box. The same bits come out whatever the number of threads and
    whatever else the batch holds.
    """

    def __init__(self, threads: int = 1) -> None:
        """Raises ValueError if there is less than one thread; the caller of `decode` is one of them."""
        self._pool = _core.pool(threads)

    def decode(
        self, beton: Beton, samples: NDArray[np.int64], boxes: Boxes, out: NDArray[np.uint8], field: str | None = None
    ) -> None:
        """Fill out (N, height, width, 3), uint8 RGB, from samples (N,) and their boxes, without the GIL.

        Raises DataError for the first sample of the batch that is damaged.
        """
        failures = self.try_decode(beton, samples, boxes, out, field)
        if failures:
            raise failures[min(failures)]

    def try_decode(
        self, beton: Beton, samples: NDArray[np.int64], boxes: Boxes, out: NDArray[np.uint8], field: str | None = None
    ) -> dict[int, DataError]:
        """Fill `out` as `decode` does, and tell what is wrong with the damaged samples, by their place in the batch."""
        images = beton.images(field)
        jobs = np.empty(len(samples), _SAMPLE)
        jobs["offset"], jobs["size"] = images.offsets[samples], images.sizes[samples]
        jobs["height"], jobs["width"] = images.heights[samples], images.widths[samples]
        jobs["top"], jobs["left"] = boxes.top, boxes.left
        jobs["box_height"], jobs["box_width"] = boxes.height, boxes.width
        jobs["mode"], jobs["flip"] = images.mode[samples], boxes.flip
        _, height, width, _ = out.shape
        failures = _core.decode(self._pool, beton.fileno(), jobs, out, height, width)
        return {index: DataError(beton.path, int(samples[index]), reason) for index, reason in failures}

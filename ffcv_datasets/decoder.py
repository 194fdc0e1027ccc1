"""Cuts, resamples and mirrors the images of a batch: the Python face of the C core in `_decode/`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets._decode import _core
from ffcv_datasets.beton import Beton, Images
from ffcv_datasets.crop import Boxes
from ffcv_datasets.levels import level_for

_SAMPLE = np.dtype(
    [
        ("offset", np.uint64),
        ("size", np.uint64),
        ("index_size", np.uint64),
        ("checksum", np.uint64),
        ("height", np.int32),
        ("width", np.int32),
        ("stored_height", np.int32),
        ("stored_width", np.int32),
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

    def __init__(self, threads: int = 1, *, plain: bool = False) -> None:
        """Raises ValueError if there is less than one thread; the caller of `decode` is one of them.

        A plain one does without what makes decoding fast, AVX2 and our own entropy decoding: to the same bits.
        """
        self._pool = _core.pool(threads, plain)

    def decode(
        self, beton: Beton, samples: NDArray[np.int64], boxes: Boxes, out: NDArray[np.uint8], field: str | None = None
    ) -> None:
        """Fill out (N, height, width, 3), uint8 RGB, from samples (N,) and their boxes, without the GIL.

        Of each image the smallest level is read in which the box has at least the output's pixels.
        Raises DataError for the first sample of the batch that is damaged.
        """
        failures = self.try_decode(beton, samples, boxes, out, field)
        if failures:
            raise failures[min(failures)]

    def try_decode(
        self, beton: Beton, samples: NDArray[np.int64], boxes: Boxes, out: NDArray[np.uint8], field: str | None = None
    ) -> dict[int, DataError]:
        """Fill `out` as `decode` does, and tell what is wrong with the damaged samples, by their place in the batch."""
        _, height, width, _ = out.shape
        chosen = self.levels_read(beton, samples, boxes, height, width, field)
        stored = np.choose(chosen, [level[samples] for level in beton.levels(field)])
        jobs = _jobs(beton.images(field), samples, stored, boxes)
        failures = _core.decode(self._pool, beton.fileno(), jobs, out, height, width)
        whence = f", as read from its copy {beton.copy}" if beton.copy else ""
        return {index: DataError(beton.path, int(samples[index]), reason + whence) for index, reason in failures}

    @staticmethod
    def levels_read(
        beton: Beton, samples: NDArray[np.int64], boxes: Boxes, height: int, width: int, field: str | None = None
    ) -> NDArray[np.intp]:
        """(N,): the number of the level that is read of each image for an output of that size."""
        return level_for(height, width, boxes.height, boxes.width, [level[samples] for level in beton.levels(field)])

    def examine(self, beton: Beton, samples: NDArray[np.int64], level: int, field: str | None = None) -> dict[int, str]:
        """Read all that is stored of samples (N,) at a level, to its end; tells what is wrong, by their numbers."""
        rows = beton.levels(field)[level]
        samples = samples[rows["size"][samples] > 0] if level else samples
        stored = rows[samples]
        heights, widths = stored["height"].astype(np.int32), stored["width"].astype(np.int32)
        zeros = np.zeros(len(samples), np.int32)
        jobs = _jobs(beton.images(field), samples, stored, Boxes(zeros, zeros, heights, widths, zeros > 0))
        jobs["height"], jobs["width"] = heights, widths
        # One pixel of output: entropy decoding, which is where damage shows, is of every bit all the same.
        out = np.empty((len(samples), 1, 1, 3), np.uint8)
        failures = _core.decode(self._pool, beton.fileno(), jobs, out, 1, 1)
        return {int(samples[index]): reason for index, reason in failures}


def _jobs(images: Images, samples: NDArray[np.int64], stored: NDArray[Any], boxes: Boxes) -> NDArray[Any]:
    """_SAMPLE rows (N,) for samples (N,), of which the images `stored` (N,), rows of levels.LEVEL, are to be read."""
    jobs = np.empty(len(samples), _SAMPLE)
    for name in ("offset", "size", "index_size", "checksum"):
        jobs[name] = stored[name]
    jobs["stored_height"], jobs["stored_width"] = stored["height"], stored["width"]
    jobs["height"], jobs["width"] = images.heights[samples], images.widths[samples]
    jobs["top"], jobs["left"] = boxes.top, boxes.left
    jobs["box_height"], jobs["box_width"] = boxes.height, boxes.width
    jobs["mode"], jobs["flip"] = images.mode[samples], boxes.flip
    return jobs

"""Batches of decoded images of a .beton file, for training and evaluation."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.batches import Allocate, Batch, BatchIterator, BatchStream, Block, Blocks
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import View, boxes
from ffcv_datasets.decoder import DataError, Decoder
from ffcv_datasets.substitute import MAX_ATTEMPTS, substitutes


def _pageable(num_bytes: int) -> NDArray[np.uint8]:
    return np.empty(num_bytes, np.uint8)


class Loader:
    """Reads one .beton file that has one image and one int field.

    Resolution, batch and view belong to each iterator: opening another starts no decoding thread and, unless its
    batches are larger, allocates no memory for images. Several may be open at a time; their batches are then decoded
    in turns. A loader made before a fork works in the child; an iterator stays with the process that opened it.
    """

    num_samples: int
    batches_ahead: int

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        copy: Path | None = None,
        threads: int = 1,
        batches_ahead: int = 3,
        skip_corrupt: bool = False,
        largest_batch_bytes: int = 0,
        allocate: Allocate = _pageable,
    ) -> None:
        """Open the file, with `threads` to decode each batch and up to `batches_ahead` batches waiting for use.

        With `copy`, the same bytes elsewhere, that is read; errors name the file itself.

        With `skip_corrupt`, another sample stands in for one that cannot be decoded: see substitute.py. Memory for
        images comes from `allocate`, in blocks of at least `largest_batch_bytes`: one size, if that is known before.

        Raises BetonError for what is not a whole .beton file of that kind, ValueError for a number below 1.
        """
        if batches_ahead < 1:
            raise ValueError(f"batches_ahead: {batches_ahead} is less than 1")
        self._decoder = Decoder(threads)
        self._beton = Beton(path, copy=copy)
        self._labels = self._beton.labels()
        self.batches_ahead = batches_ahead
        self._skip_corrupt = skip_corrupt
        self._new_block = lambda: Block(allocate, largest_batch_bytes)
        self._idle: list[Block] = []
        self._iterators: weakref.WeakSet[BatchIterator] = weakref.WeakSet()
        self.num_samples = self._beton.num_samples

    def batches(
        self, samples: Sequence[NDArray[np.int64]], view: View, *, after: BatchStream | None = None
    ) -> BatchIterator:
        """One Batch for each array of sample numbers (N,), in their order; decoding begins at once.

        With `after`, an iterator of this loader, decoding begins when all of that one's batches are decoded, and in
        the same memory: so two epochs in a row leave no gap, and take no more than one. Its first batch closes `after`.

        Raises ValueError for numbers of samples that the file does not have.
        """
        for numbers in samples:
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.num_samples:
                raise ValueError(
                    f"{self._beton.path}: asked for samples {numbers.min()} .. {numbers.max()}, "
                    f"but it has 0 .. {self.num_samples - 1}"
                )

        def decode(numbers: NDArray[np.int64], block: Block) -> Batch:
            images = block.array((len(numbers), view.resolution, view.resolution, 3))
            failures = self._fill(images, numbers, view)
            if failures:
                numbers = self._replace(failures, images, numbers, view)
            return Batch(images, self._labels[numbers], numbers, tuple(failures.values()))

        assert after is None or isinstance(after, BatchIterator), after
        blocks = after.blocks if after else None
        blocks = blocks or Blocks.take(self._idle, self.batches_ahead + 1, self._new_block)  # one is in use
        iterator = BatchIterator(decode, samples, blocks, after)
        self._iterators.add(iterator)
        return iterator

    def _fill(self, images: NDArray[np.uint8], numbers: NDArray[np.int64], view: View) -> dict[int, DataError]:
        where = boxes(view, numbers, self._beton.heights()[numbers], self._beton.widths()[numbers])
        return self._decoder.try_decode(self._beton, numbers, where, images)

    def _replace(
        self, failures: dict[int, DataError], images: NDArray[np.uint8], numbers: NDArray[np.int64], view: View
    ) -> NDArray[np.int64]:
        """Put sound samples in the places of those that failed, and return the numbers of what is there now.

        Raises DataError where that is not wanted, or no sound sample is found.
        """
        places = np.array(sorted(failures))
        if not self._skip_corrupt:
            raise failures[int(places[0])]
        shown: NDArray[np.int64] = numbers.copy()
        for attempt in range(MAX_ATTEMPTS):
            shown[places] = substitutes(view, numbers[places], attempt, num_samples=self.num_samples)
            found = np.empty((len(places), *images.shape[1:]), np.uint8)
            still_failing = sorted(self._fill(found, shown[places], view))
            images[places] = found
            places = places[still_failing]
            if not places.size:
                return shown
        raise failures[int(places[0])]

    def close(self) -> None:
        """Close the iterators that are still open, then the file."""
        for iterator in list(self._iterators):
            iterator.close()
        self._beton.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

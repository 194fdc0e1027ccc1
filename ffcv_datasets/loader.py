"""Batches of decoded images, made ahead of their use by a thread in the background."""

import math
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import View, boxes
from ffcv_datasets.decoder import Decoder


@dataclass(frozen=True)
class Batch:
    """N samples. The images stay as they are until the iterator's next step or its `close`."""

    images: NDArray[np.uint8]
    """(N, resolution, resolution, 3) RGB."""
    labels: NDArray[np.int64]
    """(N,)"""
    samples: NDArray[np.int64]
    """(N,): which samples of the file they are."""


class Loader:
    """Reads one .beton file that has one image and one int field.

    Resolution, batch and view belong to each iterator: opening another starts no decoding thread and, unless its
    batches are larger, allocates no memory for images. Several may be open at a time; their batches are then decoded
    in turns. A loader made before a fork works in the child; an iterator stays with the process that opened it.
    """

    num_samples: int

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, batches_ahead: int = 3) -> None:
        """Open the file, with `threads` to decode each batch and up to `batches_ahead` batches waiting for use.

        Raises BetonError for what is not a whole .beton file of that kind, ValueError for a number below 1.
        """
        if batches_ahead < 1:
            raise ValueError(f"batches_ahead: {batches_ahead} is less than 1")
        self._decoder = Decoder(threads)
        self._beton = Beton(path)
        self._labels = self._beton.labels()
        self._batches_ahead = batches_ahead
        self._idle: list[_Block] = []
        self._iterators: weakref.WeakSet[BatchIterator] = weakref.WeakSet()
        self.num_samples = self._beton.num_samples

    def batches(self, samples: Sequence[NDArray[np.int64]], view: View) -> "BatchIterator":
        """One Batch for each array of sample numbers (N,), in their order; decoding begins at once.

        Raises ValueError for numbers of samples that the file does not have.
        """
        for numbers in samples:
            if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.num_samples:
                raise ValueError(
                    f"{self._beton.path}: asked for samples {numbers.min()} .. {numbers.max()}, "
                    f"but it has 0 .. {self.num_samples - 1}"
                )

        def decode(numbers: NDArray[np.int64], block: _Block) -> Batch:
            where = boxes(view, numbers, self._beton.heights()[numbers], self._beton.widths()[numbers])
            images = block.array((len(numbers), view.resolution, view.resolution, 3))
            self._decoder.decode(self._beton, numbers, where, images)
            return Batch(images, self._labels[numbers], numbers)

        iterator = BatchIterator(decode, samples, self._idle, self._batches_ahead)
        self._iterators.add(iterator)
        return iterator

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


class BatchIterator(Iterator[Batch]):
    """Yields a loader's batches. The thread behind it ends with the last one, `close()`, or this object's life."""

    def __init__(
        self,
        decode: "Callable[[NDArray[np.int64], _Block], Batch]",
        samples: Sequence[NDArray[np.int64]],
        idle: "list[_Block]",
        batches_ahead: int,
    ) -> None:
        self._num_batches = len(samples)
        self._process = os.getpid()
        self._in_use: _Block | None = None
        self._work = _Work(decode, samples, idle, batches_ahead + 1)
        # Neither the work nor its thread knows this object, so leaving a loop early ends them as soon as it is dropped.
        self._end = weakref.finalize(self, self._work.end)

    def __next__(self) -> Batch:
        """The next batch. Raises whatever kept the thread from making it, such as DataError for a damaged sample."""
        if os.getpid() != self._process:
            raise RuntimeError("this iterator was opened before a fork; open one in the process that uses it")
        if not self._end.alive:
            raise StopIteration
        if self._in_use is not None:
            self._work.vacant.put(self._in_use)
            self._in_use = None
        made = self._work.made.get()
        if isinstance(made, tuple):
            batch, self._in_use = made
            return batch
        self.close()
        if made is None:
            raise StopIteration
        raise made

    def __len__(self) -> int:
        """The number of batches from the first to the last, yielded ones included."""
        return self._num_batches

    def close(self) -> None:
        """End the thread and give all memory back, the last batch's too. Closing again does nothing."""
        if self._end.alive and self._in_use is not None:
            self._work.vacant.put(self._in_use)
        self._end()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Block:
    """Memory for one batch of images, which grows to the largest asked for."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        size = math.prod(shape)
        if size > self._memory.size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(shape)


class _Work:
    """The thread behind an iterator: vacant blocks go in, (batch, its block) come out, then None or an error."""

    def __init__(
        self,
        decode: Callable[[NDArray[np.int64], _Block], Batch],
        samples: Sequence[NDArray[np.int64]],
        idle: list[_Block],
        num_blocks: int,
    ) -> None:
        self.vacant: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self.made: queue.SimpleQueue[tuple[Batch, _Block] | BaseException | None] = queue.SimpleQueue()
        for _ in range(num_blocks):
            self.vacant.put(idle.pop() if idle else _Block())
        self._idle = idle
        self._ending = False
        self._process = os.getpid()
        # A daemon, for the interpreter joins other threads before it runs the finalizers that would end this one.
        self._thread = threading.Thread(target=self._run, args=(decode, samples), name="batches", daemon=True)
        self._thread.start()

    def _run(self, decode: Callable[[NDArray[np.int64], _Block], Batch], samples: Sequence[NDArray[np.int64]]) -> None:
        try:
            for numbers in samples:
                block = self.vacant.get()
                if block is None or self._ending:
                    self.vacant.put(block)
                    return
                self.made.put((decode(numbers, block), block))
            self.made.put(None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            self.made.put(error)

    def end(self) -> None:
        """Stop after the batch in hand, and leave the blocks to the next iterator."""
        if os.getpid() != self._process:
            return  # a forked child has no such thread, and the queues' locks may be held for ever
        self._ending = True
        self.vacant.put(None)  # wakes the thread where it waits for a block
        if threading.current_thread() is not self._thread:  # as when garbage is collected there
            self._thread.join()
        while not self.made.empty():
            made = self.made.get()
            if isinstance(made, tuple):
                self._idle.append(made[1])
        while not self.vacant.empty():
            block = self.vacant.get()
            if block is not None:
                self._idle.append(block)

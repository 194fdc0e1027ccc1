"""Batches made ahead of their use by a thread in the background, in memory that is used again."""

import math
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.crop import View
from ffcv_datasets.decoder import DataError

Allocate: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""Gives so many bytes of memory, as a flat array."""


@dataclass(frozen=True)
class Batch:
    """N samples. The images stay as they are until the iterator's next step or its `close`."""

    images: NDArray[np.uint8]
    """(N, resolution, resolution, 3) RGB."""
    labels: NDArray[np.int64]
    """(N,)"""
    samples: NDArray[np.int64]
    """(N,): which samples of the file they are."""
    replaced: tuple[DataError, ...] = ()
    """What was wrong with the samples in whose place others stand."""


class BatchStream(Protocol):
    """Batches in their order; to be closed when left early."""

    def __next__(self) -> Batch: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __enter__(self) -> Iterator[Batch]: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Give threads and memory back; more than once does nothing."""


class BatchSource(Protocol):
    """A data set that can be read in batches: our Loader, or FFCV's behind the same face."""

    num_samples: int
    batches_ahead: int

    def batches(
        self, samples: Sequence[NDArray[np.int64]], view: View, *, after: BatchStream | None = None
    ) -> BatchStream:
        """One Batch for each array of sample numbers (N,), in their order; those of `after` may be decoded before."""
        ...

    def close(self) -> None:
        """Close the iterators that are still open, then the file."""


class Block:
    """Memory for one batch of images, which grows to the largest asked for."""

    def __init__(self, allocate: Allocate, num_bytes: int = 0) -> None:
        """Nothing is allocated before it is used; the first time at least `num_bytes`."""
        self._allocate = allocate
        self._least = num_bytes
        self._memory = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        size = math.prod(shape)
        if size > self._memory.size:
            self._memory = self._allocate(max(size, self._least))
        return self._memory[:size].reshape(shape)


Decode: TypeAlias = Callable[[NDArray[np.int64], Block], Batch]
"""Makes a batch of the samples with these numbers, its images in that block."""


@dataclass(eq=False)
class Blocks:
    """The memory that one iterator uses, or several in a row."""

    vacant: "queue.SimpleQueue[Block | None]"
    """None wakes a thread that waits here, to see whether it is to end."""
    idle: list[Block]
    """Where the blocks go at the end."""
    users: "set[_Work]" = field(default_factory=set)

    @classmethod
    def take(cls, idle: list[Block], num_blocks: int, new: Callable[[], Block]) -> "Blocks":
        """Idle blocks as far as they go, then new ones."""
        blocks = cls(queue.SimpleQueue(), idle)
        for _ in range(num_blocks):
            blocks.vacant.put(idle.pop() if idle else new())
        return blocks

    def leave(self, user: "_Work") -> None:
        """Without `user` from now on; the last one to leave hands the memory on."""
        self.users.discard(user)
        if self.users:
            return
        while not self.vacant.empty():
            block = self.vacant.get()
            if block is not None:
                self.idle.append(block)


class BatchIterator(Iterator[Batch]):
    """Yields a loader's batches. The thread behind it ends with the last one, `close()`, or this object's life."""

    def __init__(
        self,
        decode: Decode,
        samples: Sequence[NDArray[np.int64]],
        blocks: Blocks,
        after: "BatchIterator | None" = None,
    ) -> None:
        """Decode into `blocks`; with `after`, once all of its batches are decoded, in `blocks` that both share."""
        self._num_batches = len(samples)
        self._process = os.getpid()
        self._after = after
        self._in_use: Block | None = None
        self._work: _Work = _Work(decode, samples, blocks, after._work if after else None)
        # Neither the work nor its thread knows this object, so leaving a loop early ends them as soon as it is dropped.
        self._end = weakref.finalize(self, self._work.end)

    def __next__(self) -> Batch:
        """The next batch. Raises whatever kept the thread from making it, such as DataError for a damaged sample."""
        if os.getpid() != self._process:
            raise RuntimeError("this iterator was opened before a fork; open one in the process that uses it")
        if not self._end.alive:
            raise StopIteration
        if self._after is not None:
            self._after.close()  # it may hold all the memory that both share
            self._after = None
        if self._in_use is not None:
            self._work.blocks.vacant.put(self._in_use)
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

    @property
    def blocks(self) -> Blocks | None:
        """Its memory, for an iterator that comes after; None if it has been handed on already."""
        return self._work.blocks if self._work.blocks.users else None

    def close(self) -> None:
        """End the thread and give all memory back, the last batch's too. Closing again does nothing."""
        if self._end.alive and self._in_use is not None:
            self._work.blocks.vacant.put(self._in_use)
        self._end()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Work:
    """The thread behind an iterator: vacant blocks go in, (batch, its block) come out, then None or an error."""

    def __init__(
        self,
        decode: Decode,
        samples: Sequence[NDArray[np.int64]],
        blocks: Blocks,
        after: "_Work | None",
    ) -> None:
        self.blocks = blocks
        self.blocks.users.add(self)
        self.made: queue.SimpleQueue[tuple[Batch, Block] | BaseException | None] = queue.SimpleQueue()
        self.is_decoded = False
        self.decoded: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Wakes the thread of the work that comes after."""
        self._after = after
        self._ending = False
        self._process = os.getpid()
        # A daemon, for the interpreter joins other threads before it runs the finalizers that would end this one.
        self._thread = threading.Thread(target=self._run, args=(decode, samples), name="batches", daemon=True)
        self._thread.start()

    def _run(self, decode: Decode, samples: Sequence[NDArray[np.int64]]) -> None:
        after = self._after
        while after is not None and not (after.is_decoded or self._ending):
            after.decoded.get()
        self._after = after = None  # or each epoch's would be kept by the next one's
        try:
            for numbers in samples:
                block = self._vacant_block()
                if block is None:
                    return
                self.made.put((decode(numbers, block), block))
            self.made.put(None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            self.made.put(error)
        finally:
            self.is_decoded = True
            self.decoded.put(None)

    def _vacant_block(self) -> Block | None:
        """Wait for one; None if the work is to end."""
        while not self._is_ending():
            block = self.blocks.vacant.get()
            if block is not None:
                return block
        return None

    def _is_ending(self) -> bool:
        return self._ending

    def end(self) -> None:
        """Stop after the batch in hand, and leave the blocks to the next iterator."""
        if os.getpid() != self._process:
            return  # a forked child has no such thread, and the queues' locks may be held for ever
        self._ending = True
        after = self._after
        if after is not None:
            after.decoded.put(None)  # wakes the thread where it waits for its turn
        self.blocks.vacant.put(None)  # and here, where it waits for a block
        if threading.current_thread() is not self._thread:  # as when garbage is collected there
            self._thread.join()
        while not self.made.empty():
            made = self.made.get()
            if isinstance(made, tuple):
                self.blocks.vacant.put(made[1])
        self.blocks.leave(self)

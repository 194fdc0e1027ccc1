"""Results of work by processes, in the order of the work.

Threads do not do: Pillow holds the interpreter's lock for a sixth of the time, so that more than six or so threads
would wait for each other.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

_CHUNK = 16
_CHUNKS_AHEAD_PER_WORKER = 3
_ITEMS_PER_WORKER = 128
"""Fewer are done sooner than a process starts."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLostError(RuntimeError):
    """A process that worked for this one ended by itself."""

    def __str__(self) -> str:
        return (
            "a process that encodes images was killed, most likely because memory ran out; "
            "the same command with fewer --workers goes on"
        )


def in_order(
    make: Callable[[Item], Result], items: Iterable[Item], *, num_items: int, num_workers: int
) -> Generator[Result]:
    """Yield make(item) for each of `items`, made ahead in chunks by processes; few items by this process itself.

    `make`, items and results must be picklable. Close it to end the work early. Raises WorkerLostError.
    """
    num_workers = min(num_workers, num_items // _ITEMS_PER_WORKER)
    if num_workers < 2:
        yield from map(make, items)
        return
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), _become_worker)
    chunks: deque[Future[list[Result]]] = deque()
    waiting = iter(items)
    try:
        while chunk := list(itertools.islice(waiting, _CHUNK)):
            chunks.append(pool.submit(_make_all, make, chunk))
            if len(chunks) > _CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield from chunks.popleft().result()
        while chunks:
            yield from chunks.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerLostError from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_all(make: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [make(item) for item in chunk]


def _become_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata would be told into the progress bar
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""Results of work by processes, in the order of the work.

Threads do not do: Pillow holds the interpreter's lock for a sixth of the time, so that more than six or so threads
would wait for each other. And each process has a pipe of its own: in one that all of them write to, as
`concurrent.futures` has it, half a result of a process that was killed would be waited for without end.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

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
    idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    workers = [_start(make) for _ in range(num_workers)]
    for _, connection in workers:
        idle.put(connection)
    pool = ThreadPoolExecutor(num_workers)  # each thread waits for one process
    chunks: deque[Future[list[Result]]] = deque()
    waiting = iter(items)
    try:
        while chunk := list(itertools.islice(waiting, _CHUNK)):
            chunks.append(pool.submit(_have_made, idle, chunk))
            if len(chunks) > _CHUNKS_AHEAD_PER_WORKER * num_workers:
                yield from chunks.popleft().result()
        while chunks:
            yield from chunks.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        for process, connection in workers:
            connection.close()
            process.join()


def _start(make: Callable[[Any], object]) -> tuple[SpawnProcess, Connection]:
    """A process that makes what it is sent, and ends when this one closes the connection or is killed."""
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(make, its), daemon=True)
    process.start()
    its.close()
    return process, ours


def _have_made(idle: queue.SimpleQueue[Connection], chunk: list[Any]) -> list[Any]:
    connection = idle.get()
    try:
        connection.send(chunk)
        results, error, where = connection.recv()
    except (EOFError, OSError) as lost:
        raise WorkerLostError from lost
    finally:
        idle.put(connection)
    if error is not None:
        raise error from RuntimeError(f"in a process that encodes images:\n{where}")
    return results  # type: ignore[no-any-return]


def _work(make: Callable[[Any], object], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata would be told into the progress bar
    try:
        while True:
            connection.send(_make_all(make, connection.recv()))
    except (EOFError, OSError):  # the parent has ended
        return


def _make_all(make: Callable[[Any], object], chunk: list[Any]) -> tuple[list[Any], Exception | None, str]:
    try:
        return [make(item) for item in chunk], None, ""
    except Exception as error:  # raised again by the parent
        return [], error, traceback.format_exc()

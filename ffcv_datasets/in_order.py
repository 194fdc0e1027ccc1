"""Results of work by threads, in the order of the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_CHUNK = 16
_CHUNKS_AHEAD_PER_THREAD = 3

Result = TypeVar("Result")


def in_order(make: Callable[[int], Result], count: int, num_threads: int) -> Generator[Result]:
    """Yield make(0) .. make(count - 1), made ahead in chunks by threads. Close it to end them early."""

    def make_chunk(start: int) -> list[Result]:
        return [make(index) for index in range(start, min(start + _CHUNK, count))]

    chunks: deque[Future[list[Result]]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="encode")
    try:
        for start in range(0, count, _CHUNK):
            chunks.append(pool.submit(make_chunk, start))
            if len(chunks) > _CHUNKS_AHEAD_PER_THREAD * num_threads:
                yield from chunks.popleft().result()
        while chunks:
            yield from chunks.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

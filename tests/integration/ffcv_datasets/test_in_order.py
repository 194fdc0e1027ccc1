"""Work by processes: its results in order, its errors, and processes that end in the middle of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import psutil
import pytest

from ffcv_datasets.in_order import WorkerLostError, in_order

NUM_ITEMS = 2 * 128
"""As few as are worth two processes."""


def two_processes(make: Callable[[int], object]) -> list[object]:
    return list(in_order(make, range(NUM_ITEMS), num_items=NUM_ITEMS, num_workers=2))


def square(item: int, *, who: bool = False) -> int:
    return os.getpid() if who else item * item


def fail(item: int, *, at: int) -> int:
    if item == at:
        raise ValueError(f"{item} is one too many")
    return item


def die_while_sending(item: int, *, at: int) -> bytes:
    """Be killed with half of the result sent, as when memory runs out."""

    def send_half(self: Connection, buffer: bytes, write: object = None) -> None:
        os.write(self.fileno(), buffer[: len(buffer) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    if item == at:
        Connection._send = send_half  # type: ignore[attr-defined]
    return bytes(10_000)


def test_results_come_in_the_order_of_the_work() -> None:
    assert two_processes(partial(square)) == [item * item for item in range(NUM_ITEMS)]


def test_processes_make_them() -> None:
    makers = set(two_processes(partial(square, who=True)))
    assert os.getpid() not in makers
    assert 1 <= len(makers) <= 2


def test_an_error_is_raised_here_and_tells_where_it_was_raised() -> None:
    with pytest.raises(ValueError, match="100 is one too many") as caught:
        two_processes(partial(fail, at=100))
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize("at", [0, NUM_ITEMS - 1])
def test_a_process_killed_while_it_sends_a_result_ends_the_work(at: int) -> None:
    with pytest.raises(WorkerLostError, match="was killed"):
        two_processes(partial(die_while_sending, at=at))
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_closed_early_no_process_is_left() -> None:
    results = in_order(square, range(NUM_ITEMS), num_items=NUM_ITEMS, num_workers=2)
    assert next(results) == 0
    results.close()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]

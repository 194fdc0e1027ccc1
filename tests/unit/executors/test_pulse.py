"""A worker's signs of life."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from launcher.executors.pulse import Progress, pulse, standing
from launcher.plan import Position
from launcher.watch import Beat

ANSWER_S = 60.0


def beating(beats: queue.Queue[Beat], progress: Progress) -> Iterator[Beat]:
    """Beats, as they come from a thread that stands in `until_told`."""
    told = threading.Event()

    def until_told() -> None:
        told.wait()

    def train() -> None:
        with pulse(3, "node7", progress, beats.put, every_s=0.01):
            until_told()

    training = threading.Thread(target=train)
    training.start()
    yield beats.get(timeout=ANSWER_S)
    while (beat := beats.get(timeout=ANSWER_S)).doing.startswith("pulse"):
        pass  # It began to beat before the thread came to stand.
    progress.position, progress.activity, progress.steps_begun = Position(1, 64), 7, lambda: 42
    while beats.get(timeout=ANSWER_S).steps_begun != 42:
        pass
    yield beats.get(timeout=ANSWER_S)
    told.set()
    training.join()
    while (beat := beats.get(timeout=ANSWER_S)).doing != "its end":
        pass
    yield beat


def test_beats_tell_how_far_a_worker_is_and_go_on_after_its_work() -> None:
    first, later, last = beating(queue.Queue(), Progress())
    assert (first.rank, first.node, first.position, first.steps_begun, first.activity) == (3, "node7", None, 0, 0)
    assert (later.position, later.steps_begun, later.activity, later.waits) == (Position(1, 64), 42, 7, False)
    assert "threading.py" in later.doing
    assert last.waits


def test_a_worker_that_fails_gives_no_further_sign() -> None:
    beaters: queue.Queue[threading.Thread] = queue.Queue()
    with (
        pytest.raises(KeyError),
        pulse(0, "n", Progress(), lambda _: beaters.put(threading.current_thread()), every_s=0.01),
    ):
        raise KeyError
    beater = beaters.get(timeout=ANSWER_S)
    beater.join(ANSWER_S)
    assert not beater.is_alive()


def here() -> FrameType:
    return sys._getframe()


def test_where_a_thread_stands() -> None:
    doing, waits = standing(here())
    assert doing.startswith("here (test_pulse.py:")
    assert not waits


def test_a_thread_within_a_collective_waits() -> None:
    code = compile(
        "import sys\ndef all_reduce(ask): return ask()\n", "/x/torch/distributed/distributed_c10d.py", "exec"
    )
    names: dict[str, object] = {}
    exec(code, names)
    frame = names["all_reduce"](here)  # type: ignore[operator]
    assert standing(frame)[1]

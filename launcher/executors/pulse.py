"""A worker's signs of life: a thread tells every few seconds how far the training thread is, and where it stands."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from launcher.plan import Position
from launcher.watch import Beat

_COLLECTIVES = ("torch/distributed/", "torch/autograd/")
"""Code in which a rank waits for others: collectives, and the backward pass, which exchanges gradients."""


@dataclass
class Progress:
    """What a worker knows of its own progress; the training thread writes it, the pulse reads it."""

    position: Position | None = None
    activity: int = 0
    steps_begun: Callable[[], int] = lambda: 0


@contextmanager
def pulse(rank: int, node: str, progress: Progress, send: Callable[[Beat], None], *, every_s: float) -> Iterator[None]:
    """Send a beat at once, and every `every_s` from then on, about the thread that enters.

    If the context ends by an exception, so do the beats; otherwise they go on until the process ends: this rank may
    have to wait for the others still.
    """
    ended = threading.Event()
    training, host = threading.get_ident(), socket.gethostname()

    def beat() -> None:
        while True:
            doing, waits = standing(sys._current_frames().get(training))
            send(
                Beat(
                    rank=rank,
                    host=host,
                    pid=os.getpid(),
                    node=node,
                    position=progress.position,
                    steps_begun=progress.steps_begun(),
                    activity=progress.activity,
                    doing=doing,
                    waits=waits,
                )
            )
            if ended.wait(every_s):
                return

    threading.Thread(target=beat, name="pulse", daemon=True).start()
    try:
        yield
    except BaseException:
        ended.set()
        raise


def standing(frame: FrameType | None) -> tuple[str, bool]:
    """Where a thread stands, innermost function first, and whether it may be waiting for another rank there.

    None: the thread has ended, as the other ranks' still have to.
    """
    if frame is None:
        return "its end", True
    file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
    doing = f"{function} ({file.name}:{frame.f_lineno})"
    waits = False
    while frame is not None and not waits:
        waits = any(part in frame.f_code.co_filename for part in _COLLECTIVES)
        frame = frame.f_back
    return doing, waits

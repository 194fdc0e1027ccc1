"""Signals as bytes to read, rather than as interruptions."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Inbox:
    """What came since the last look."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def await_signal(self, *, within_s: float) -> bool:
        """Wait until something has come, a child's end among it; whether a signal to stop was there."""
        ready = select.select([self._descriptor], [], [], within_s)[0]
        received = os.read(self._descriptor, 64) if ready else b""
        return any(number in STOP_SIGNALS for number in received)


@contextlib.contextmanager
def open_inbox() -> Iterator[Inbox]:
    """Signals to stop, and of children's ends, come there while inside. To be entered in the main thread."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handled = (*STOP_SIGNALS, signal.SIGCHLD)
    previous = {number: signal.signal(number, lambda number, frame: None) for number in handled}
    signal.set_wakeup_fd(writing)
    try:
        yield Inbox(reading)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)

"""Stop requests from outside: the first signal asks, the second insists."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What terminals, schedulers and operators send: Ctrl-C, kill, a lost connection, Slurm's --signal."""


@contextmanager
def stop_on_signal(request_stop: Callable[[str], None]) -> Iterator[None]:
    """While inside, a stop signal calls `request_stop(reason)`; a second one raises KeyboardInterrupt.

    SIGHUP stays ignored where it is, as under nohup. To be entered in the main thread. `request_stop` runs inside the
    handler and so may only set a flag.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        request_stop(f"received {signal.Signals(number).name}")

    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heeded = [number for number in STOP_SIGNALS if not (number is signal.SIGHUP and nohup)]
    previous = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

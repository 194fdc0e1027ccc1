"""Stop requests from outside: the first signal asks, the second insists."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal(request_stop: Callable[[str], None]) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM call `request_stop(reason)`; a second signal raises KeyboardInterrupt.

    To be entered in the main thread. `request_stop` runs inside the handler and so may only set a flag.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        request_stop(f"received {signal.Signals(number).name}")

    previous = {number: signal.signal(number, handle) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

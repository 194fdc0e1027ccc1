"""One worker in this process: the same coordinator, worker and trainer, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.coordinator import Acknowledgement, Agreement, Coordinator, Directive, Done, Stop
from launcher.events import Event, StopRequested
from launcher.plan import Position
from launcher.run_setup import RunSetup
from launcher.signals import stop_on_signal
from launcher.worker_process import Place, run_worker


class DirectLink:
    """Reaches the coordinator by plain calls, and tells it first of the stops asked for since the last one."""

    def __init__(self, coordinator: Coordinator, stop_reasons: list[str], on_event: Callable[[Event], None]):
        self._coordinator = coordinator
        self._stop_reasons = stop_reasons
        self._on_event = on_event

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        while self._stop_reasons:
            reason = self._stop_reasons.pop()
            self._coordinator.request_stop(reason)
            self._on_event(StopRequested(reason))
        return self._coordinator.next(
            rank=rank, turn=turn, position=position, samples_per_s=samples_per_s, now_s=time.monotonic()
        )

    def prefetch(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None, after_s: float
    ) -> None:
        """Plain calls take no time worth saving."""

    def heed(self, steps_begun: Callable[[], int]) -> None:
        """There is nobody to wait for, and nobody who waits."""

    def note_save(self, seconds: float) -> None:
        self._coordinator.note_save(seconds)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._coordinator.acknowledge(acknowledgement)

    def agreement(self, turn: int) -> Agreement:
        return self._coordinator.agreement(turn)

    def emit(self, event: Event) -> None:
        self._on_event(event)


def run_single(setup: RunSetup, on_event: Callable[[Event], None]) -> Stop | Done:
    """Carry the plan out in this process, and tell how it ended. SIGINT and SIGTERM stop it at the lease's end."""
    stop_reasons: list[str] = []
    with stop_on_signal(stop_reasons.append):
        return run_worker(setup, Place.alone(), DirectLink(setup.coordinator(), stop_reasons, on_event))

"""One worker in this process: the same coordinator, worker and trainer, without Ray."""

from __future__ import annotations

from collections.abc import Callable

from launcher.coordinator import Acknowledgement, Agreement, Coordinator, Directive, Done, Stop
from launcher.events import Event
from launcher.plan import Position
from launcher.run_setup import RunSetup
from launcher.signals import stop_on_signal
from launcher.worker_process import Place, run_worker


class DirectLink:
    """Reaches the coordinator by plain calls."""

    def __init__(self, coordinator: Coordinator, on_event: Callable[[Event], None]):
        self._coordinator = coordinator
        self._on_event = on_event

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        return self._coordinator.next(rank=rank, turn=turn, position=position, samples_per_s=samples_per_s)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._coordinator.acknowledge(acknowledgement)

    def agreement(self, turn: int) -> Agreement:
        return self._coordinator.agreement(turn)

    def emit(self, event: Event) -> None:
        self._on_event(event)


def run_single(setup: RunSetup, on_event: Callable[[Event], None]) -> Stop | Done:
    """Carry the plan out in this process, and tell how it ended. SIGINT and SIGTERM stop it at the lease's end."""
    coordinator = setup.coordinator()
    with stop_on_signal(coordinator.request_stop):
        return run_worker(setup, Place.alone(), DirectLink(coordinator, on_event))

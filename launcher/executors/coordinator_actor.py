"""The coordinator behind a Ray actor, and a worker's link to it."""

from __future__ import annotations

import pickle
import time
from typing import Any

from launcher.coordinator import Acknowledgement, Agreement, Coordinator, Directive
from launcher.events import Event
from launcher.plan import Position

ACTOR_NAME = "coordinator"


class CoordinatorPost:
    """What the actor runs, one call at a time: the coordinator, and a letter box from the workers to the driver.

    Letters stay closed: to unpickle an event can mean to import torch, which this process does without.
    """

    def __init__(self, coordinator: Coordinator):
        self._coordinator = coordinator
        self._letters: list[bytes] = []

    def next(self, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        return self._coordinator.next(
            rank=rank, turn=turn, position=position, samples_per_s=samples_per_s, now_s=time.monotonic()
        )

    def note_save(self, seconds: float) -> None:
        self._coordinator.note_save(seconds)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._coordinator.acknowledge(acknowledgement)

    def agreement(self, turn: int) -> Agreement:
        return self._coordinator.agreement(turn)

    def post(self, letter: bytes) -> None:
        self._letters.append(letter)

    def request_stop(self, reason: str) -> None:
        self._coordinator.request_stop(reason)

    def take_letters(self) -> list[bytes]:
        """The letters since the last call, in order."""
        letters, self._letters = self._letters, []
        return letters


class ActorLink:
    """Reaches the coordinator by calls to its actor; they take about 4 ms."""

    def __init__(self) -> None:
        import ray

        self._actor = ray.get_actor(ACTOR_NAME)

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        directive: Directive = self._call("next", rank, turn, position, samples_per_s)
        return directive

    def prefetch(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None, after_s: float
    ) -> None:
        """Not yet."""

    def note_save(self, seconds: float) -> None:
        self._call("note_save", seconds)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._call("acknowledge", acknowledgement)

    def agreement(self, turn: int) -> Agreement:
        agreement: Agreement = self._call("agreement", turn)
        return agreement

    def emit(self, event: Event) -> None:
        self._call("post", pickle.dumps(event))

    def _call(self, method: str, *arguments: object) -> Any:
        """Raises what the coordinator raised, rather than Ray's wrapping of it."""
        import ray

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

"""The coordinator behind a Ray actor, and a worker's link to it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from launcher.coordinator import Acknowledgement, Agreement, Coordinator, Directive, Done, Stop
from launcher.events import Event
from launcher.executors.pulse import Progress
from launcher.plan import Position
from launcher.watch import Beat

ANSWER_S = 60.0
"""A call takes about 4 ms."""


class CoordinatorLostError(RuntimeError):
    """The coordinator is gone, or does not answer."""


@dataclass
class News:
    """What the driver has not heard yet."""

    letters: list[bytes] = field(default_factory=list)
    """Pickled events, in order."""
    beats: dict[int, Beat] = field(default_factory=dict)
    """The last one of each rank."""
    farewells: dict[int, Stop | Done] = field(default_factory=dict)
    """How it ended for each rank whose work is over."""


class CoordinatorPost:
    """What the actor runs, one call at a time: the coordinator, and a letter box from the workers to the driver.

    Letters stay closed: to unpickle an event can mean to import torch, which this process does without.
    """

    def __init__(self, coordinator: Coordinator):
        self._coordinator = coordinator
        self._news = News()

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
        self._news.letters.append(letter)

    def beat(self, beat: Beat) -> None:
        self._news.beats[beat.rank] = beat

    def farewell(self, rank: int, outcome: Stop | Done) -> None:
        self._news.farewells[rank] = outcome

    def request_stop(self, reason: str) -> None:
        self._coordinator.request_stop(reason)

    def request_resize(self, reason: str) -> None:
        self._coordinator.request_resize(reason)

    def take_news(self) -> News:
        """What has come since the last call."""
        news, self._news = self._news, News()
        return news


class ActorLink:
    """Reaches the coordinator by calls to its actor. Raises CoordinatorLostError where it does not answer."""

    def __init__(self, post: Any):
        self._post = post
        self._ahead: _AskedAhead | None = None
        self.progress = Progress()

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        ahead, self._ahead = self._ahead, None
        reference = ahead.take() if ahead is not None and ahead.turn == turn else None
        if reference is None:
            reference = self._post.next.remote(rank, turn, position, samples_per_s)
        self.progress.position = position
        directive: Directive = self._answer(reference)
        return directive

    def prefetch(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None, after_s: float
    ) -> None:
        def ask() -> Any:
            return self._post.next.remote(rank, turn, position, samples_per_s)

        self._ahead = _AskedAhead(turn, ask, after_s)

    def note_save(self, seconds: float) -> None:
        self._answer(self._post.note_save.remote(seconds))

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._answer(self._post.acknowledge.remote(acknowledgement))

    def agreement(self, turn: int) -> Agreement:
        agreement: Agreement = self._answer(self._post.agreement.remote(turn))
        return agreement

    def emit(self, event: Event) -> None:
        self._answer(self._post.post.remote(pickle.dumps(event)))

    def heed(self, steps_begun: Callable[[], int]) -> None:
        self.progress.steps_begun = steps_begun

    def beat(self, beat: Beat) -> None:
        """Waits for no answer: whoever hears nothing will act."""
        self._post.beat.remote(beat)

    def farewell(self, rank: int, outcome: Stop | Done) -> None:
        self._answer(self._post.farewell.remote(rank, outcome))

    def _answer(self, reference: Any) -> Any:
        """Raises what the coordinator raised, rather than Ray's wrapping of it."""
        import ray

        self.progress.activity += 1
        try:
            return ray.get(reference, timeout=ANSWER_S)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.GetTimeoutError as error:
            raise CoordinatorLostError(f"the coordinator has not answered for {ANSWER_S:g} s") from error
        except ray.exceptions.RayActorError as error:
            raise CoordinatorLostError("the coordinator's process is gone") from error


class _AskedAhead:
    """A question for directive number `turn` that a timer asks."""

    def __init__(self, turn: int, ask: Callable[[], Any], after_s: float):
        self.turn = turn
        self._ask = ask
        self._reference: Any = None
        self._timer = threading.Timer(after_s, self._go)
        self._timer.daemon = True
        self._timer.start()

    def take(self) -> Any:
        """The reference to the answer; None if it has not been asked for, nor will be."""
        self._timer.cancel()
        self._timer.join()
        return self._reference

    def _go(self) -> None:
        self._reference = self._ask()

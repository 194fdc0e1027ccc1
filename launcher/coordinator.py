"""Who does what next: an append-only log of directives that every rank reads by number.

A rank asks for directive number `turn`. The first rank to ask for a number fixes it; everybody else gets the same one,
whatever arrives in between. So ranks never disagree, and a stop needs no collective: it only changes what is appended.

The class decides and remembers; it neither waits, sleeps, prints nor looks at a clock, and is not thread-safe: *single*
calls it directly, *ray* puts it into an actor, which runs one call at a time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from launcher.plan import EpochSpec, Plan, Position

EvaluationMoment = Literal["epoch_end", "after_transition"]


@dataclass(frozen=True)
class Transition:
    """Take on `spec`'s size, batch and LR, then acknowledge. `previous` is None where a run or attempt starts."""

    spec: EpochSpec
    previous: EpochSpec | None


@dataclass(frozen=True)
class Run:
    """A lease: train `spec`'s epoch from `start` up to `until`, in samples over all ranks."""

    spec: EpochSpec
    start: int
    until: int


@dataclass(frozen=True)
class Evaluate:
    """Measure accuracy at `resolution`; `epoch` is the one just trained, or about to be trained after a transition."""

    epoch: int
    resolution: int
    moment: EvaluationMoment


@dataclass(frozen=True)
class Checkpoint:
    """Save the state at `position`, for good if it is a phase boundary."""

    position: Position
    phase_boundary: bool


@dataclass(frozen=True)
class Stop:
    """End here, to be resumed; the state at `position` is saved."""

    reason: str
    position: Position


@dataclass(frozen=True)
class Done:
    """The plan is carried out."""


Directive = Transition | Run | Evaluate | Checkpoint | Stop | Done


@dataclass(frozen=True)
class Acknowledgement:
    """What a rank really uses after a transition."""

    rank: int
    turn: int
    resolution: int
    batch_per_worker: int
    learning_rate: float
    order_hash: str
    plan_fingerprint: str


@dataclass(frozen=True)
class Pending:
    """Ranks that have not acknowledged yet."""

    missing: tuple[int, ...]


@dataclass(frozen=True)
class Agreed:
    """All ranks use the same settings, those of the plan."""


@dataclass(frozen=True)
class Disagreed:
    """Why the run cannot go on."""

    reason: str


Agreement = Pending | Agreed | Disagreed


class CoordinationError(RuntimeError):
    """A rank has left the common path."""


@dataclass(frozen=True)
class Cadence:
    """How often to evaluate and to save, and how far ahead to let ranks run."""

    evaluate_every_epochs: int = 1
    """0: never."""
    evaluation_resolution: int | None = None
    """None: at the training size."""
    checkpoint_every_epochs: int = 1
    lease_s: float = 2.0


class Coordinator:
    """Leads `plan.world_size` ranks from `start` to the plan's end."""

    def __init__(self, plan: Plan, *, start: Position, cadence: Cadence):
        self.plan = plan
        self.cadence = cadence
        self._position = start
        self._saved = start
        self._log: list[Directive] = []
        self._starts: list[Position] = []
        self._queue: deque[Directive] = deque(self._opening(start))
        self._stop_reason: str | None = None
        self._acknowledgements: dict[int, dict[int, Acknowledgement]] = {}

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None = None) -> Directive:
        """Directive number `turn`, for a rank that stands at `position`.

        `samples_per_s` is what the asker measured over all ranks; it sizes the lease if this call fixes the answer.

        Raises CoordinationError if the rank is not where the others are.
        """
        assert turn <= len(self._log), f"rank {rank} asks for turn {turn} of {len(self._log)}"
        if turn == len(self._log):
            self._starts.append(self._position)
            self._log.append(self._decide(samples_per_s))
        if position != self._starts[turn]:
            raise CoordinationError(
                f"rank {rank} stands at {_describe(position)} where the run stands at {_describe(self._starts[turn])}"
            )
        return self._log[turn]

    def request_stop(self, reason: str) -> None:
        """Grant no further lease: all ranks stop at the end of the present one, after a checkpoint."""
        self._stop_reason = self._stop_reason or reason

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Record what a rank uses after the transition of its turn."""
        self._acknowledgements.setdefault(acknowledgement.turn, {})[acknowledgement.rank] = acknowledgement

    def agreement(self, turn: int) -> Agreement:
        """Whether all ranks have acknowledged the transition of `turn`, and with the plan's settings."""
        transition = self._log[turn]
        assert isinstance(transition, Transition), (turn, transition)
        given = self._acknowledgements.get(turn, {})
        wrong = [
            reason for _, ack in sorted(given.items()) if (reason := self._disagreement(ack, transition.spec, turn))
        ]
        if wrong:
            return Disagreed("; ".join(wrong))
        missing = tuple(rank for rank in range(self.plan.world_size) if rank not in given)
        if missing:
            return Pending(missing)
        orders = {rank: ack.order_hash for rank, ack in sorted(given.items())}
        if len(set(orders.values())) > 1:
            return Disagreed(f"ranks hold different sample orders for epoch {transition.spec.epoch}: {orders}")
        return Agreed()

    def _disagreement(self, ack: Acknowledgement, spec: EpochSpec, turn: int) -> str | None:
        expected = {
            "resolution": spec.resolution,
            "batch_per_worker": spec.batch_per_worker,
            "learning_rate": self.plan.learning_rate(self._starts[turn]),
            "plan_fingerprint": self.plan.fingerprint,
        }
        differing = {name: value for name, value in expected.items() if getattr(ack, name) != value}
        if not differing:
            return None
        parts = [f"{name} {getattr(ack, name)} instead of {value}" for name, value in differing.items()]
        return f"rank {ack.rank} uses {', '.join(parts)} at epoch {spec.epoch}"

    def _opening(self, start: Position) -> list[Directive]:
        if start >= self.plan.end:
            return [Done()]
        return [Transition(self.plan.rows[start.epoch], previous=None)]

    def _decide(self, samples_per_s: float | None) -> Directive:
        if self._stop_reason is not None and not isinstance(self._last, (Stop, Done)):
            return self._decide_stop(self._stop_reason)
        directive = self._queue.popleft() if self._queue else self._lease(samples_per_s)
        if isinstance(directive, Checkpoint):
            self._saved = directive.position
        if isinstance(directive, Run):
            self._position = self.plan.after(self._position, directive.until - directive.start)
            if self._position.samples_done == 0:
                self._queue.extend(epoch_end(self.plan, directive.spec, self.cadence))
        return directive

    def _decide_stop(self, reason: str) -> Directive:
        if self._position == self.plan.end:  # Nothing left to train: finish rather than stop.
            self._stop_reason = None
            return self._decide(None)
        self._queue.clear()
        if self._saved != self._position:
            self._saved = self._position
            return Checkpoint(self._position, phase_boundary=self._position in self.plan.phase_boundaries())
        return Stop(reason, self._position)

    @property
    def _last(self) -> Directive | None:
        return self._log[-1] if self._log else None

    def _lease(self, samples_per_s: float | None) -> Run:
        assert not isinstance(self._last, (Stop, Done)), "a rank asks on after the end"
        spec = self.plan.rows[self._position.epoch]
        start = self._position.samples_done
        return Run(spec, start, lease_end(spec, start, samples_per_s=samples_per_s, lease_s=self.cadence.lease_s))


def epoch_end(plan: Plan, spec: EpochSpec, cadence: Cadence) -> list[Directive]:
    """What follows once `spec`'s epoch is trained, up to the next lease: evaluate, save, change over.

    After a transition the same weights are evaluated once more, unless the evaluation's size is the same: then the
    number from before still holds.
    """
    following = plan.rows[spec.epoch + 1] if spec.epoch + 1 < len(plan.rows) else None
    phase_ends = following is None or following.phase != spec.phase
    settings_change = following is None or not following.same_settings(spec)
    directives: list[Directive] = []

    def due(every: int) -> bool:
        return every > 0 and (settings_change or (spec.epoch + 1) % every == 0)

    if due(cadence.evaluate_every_epochs):
        resolution = cadence.evaluation_resolution or spec.resolution
        directives.append(Evaluate(spec.epoch, resolution, "epoch_end"))
    if phase_ends or due(cadence.checkpoint_every_epochs):
        directives.append(Checkpoint(Position(spec.epoch + 1), phase_boundary=phase_ends))
    if following is None:
        directives.append(Done())
    elif settings_change:
        directives.append(Transition(following, previous=spec))
        evaluated_anew = cadence.evaluation_resolution is None and following.resolution != spec.resolution
        if cadence.evaluate_every_epochs and evaluated_anew:
            directives.append(Evaluate(following.epoch, following.resolution, "after_transition"))
    return directives


def lease_end(spec: EpochSpec, start: int, *, samples_per_s: float | None, lease_s: float) -> int:
    """Where a lease from `start` ends: whole steps of about `lease_s` in all; one step if the pace is unknown."""
    steps = max(1, int((samples_per_s or 0.0) * lease_s / spec.global_batch))
    return min(start + steps * spec.global_batch, spec.num_samples)


def _describe(position: Position) -> str:
    return f"epoch {position.epoch}, sample {position.samples_done}"

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
    resize: bool = False
    """Another number of workers goes on from here at once."""


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


class LateError(CoordinationError):
    """A rank has not come along in time; nobody knows why."""


@dataclass(frozen=True)
class Cadence:
    """How often to evaluate and to save, and how far ahead to let ranks run."""

    evaluate_every_epochs: int = 1
    """0: never."""
    evaluation_resolution: int | None = None
    """None: at the training size."""
    checkpoint_every_epochs: int = 1
    checkpoint_every_s: float | None = None
    """Within epochs, too; None: not."""
    lease_s: float = 2.0
    grace_s: float | None = None
    """From the request to stop to the kill; None: unknown."""


class Coordinator:
    """Leads `plan.world_size` ranks from `start` to the plan's end."""

    def __init__(self, plan: Plan, *, start: Position, cadence: Cadence, evaluated: bool = True):
        """`evaluated`: whether the epoch that ends at `start` has been; nothing is owed if `start` lies within one."""
        self.plan = plan
        self.cadence = cadence
        self._position = start
        self._saved = start
        self._saved_at_s: float | None = None
        self._save_s = 0.0
        self._log: list[Directive] = []
        self._starts: list[Position] = []
        self._queue: deque[Directive] = deque(opening(plan, start, cadence, evaluated=evaluated))
        self._stop: _StopRequest | None = None
        self._rounds: dict[int, _Round] = {}

    def next(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None = None, now_s: float = 0.0
    ) -> Directive:
        """Directive number `turn`, for a rank that stands at `position`.

        `samples_per_s` is what the asker measured over all ranks; it sizes the lease if this call fixes the answer.
        `now_s` is the caller's monotonic clock, always the same one: checkpoints by time go by it.

        Raises CoordinationError if the rank is not where the others are.
        """
        assert turn <= len(self._log), f"rank {rank} asks for turn {turn} of {len(self._log)}"
        if turn == len(self._log):
            self._starts.append(self._position)
            self._log.append(self._decide(samples_per_s, now_s))
        if position != self._starts[turn]:
            raise CoordinationError(
                f"rank {rank} stands at {_describe(position)} where the run stands at {_describe(self._starts[turn])}"
            )
        return self._log[turn]

    def request_stop(self, reason: str) -> None:
        """Grant no further lease: all ranks stop at the end of the present one, after a checkpoint."""
        if self._stop is None or self._stop.resize:
            self._stop = _StopRequest(reason, resize=False)

    def request_resize(self, reason: str) -> None:
        """Stop likewise, for another number of workers to go on at once."""
        self._stop = self._stop or _StopRequest(reason, resize=True)

    def note_save(self, seconds: float) -> None:
        """Learn how long a checkpoint takes; where the grace period is known, leases leave time for the next one."""
        self._save_s = seconds

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Record what a rank uses after the transition of its turn."""
        turn = acknowledgement.turn
        transition = self._log[turn]
        assert isinstance(transition, Transition), (turn, transition)
        wrong = self._disagreement(acknowledgement, transition.spec, turn)
        self._round(turn).add(acknowledgement, wrong, epoch=transition.spec.epoch)

    def agreement(self, turn: int) -> Agreement:
        """Whether all ranks have acknowledged the transition of `turn`, and with the plan's settings."""
        assert isinstance(self._log[turn], Transition), (turn, self._log[turn])
        return self._round(turn).agreement

    def _round(self, turn: int) -> _Round:
        if turn not in self._rounds:  # Not setdefault: ranks poll, and a round is as large as they are many.
            self._rounds[turn] = _Round(self.plan.world_size)
        return self._rounds[turn]

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

    def _decide(self, samples_per_s: float | None, now_s: float) -> Directive:
        if self._stop is not None and not isinstance(self._last, (Stop, Done)):
            directive = self._decide_stop(self._stop)
        elif self._queue:
            directive = self._queue.popleft()
        else:
            directive = self._timed_checkpoint(now_s) or self._lease(samples_per_s)
        if isinstance(directive, Checkpoint):
            self._saved, self._saved_at_s = directive.position, now_s
        if isinstance(directive, Run):
            self._position = self.plan.after(self._position, directive.until - directive.start)
            if self._position.samples_done == 0:
                self._queue.extend(epoch_end(self.plan, directive.spec, self.cadence))
        return directive

    def _decide_stop(self, request: _StopRequest) -> Directive:
        if self._position == self.plan.end:  # Nothing left to train: finish rather than stop.
            return self._queue.popleft()
        self._queue.clear()
        if self._saved != self._position:
            return Checkpoint(self._position, phase_boundary=self._position in self.plan.phase_boundaries())
        return Stop(request.reason, self._position, request.resize)

    @property
    def _last(self) -> Directive | None:
        return self._log[-1] if self._log else None

    def _timed_checkpoint(self, now_s: float) -> Checkpoint | None:
        if self._saved_at_s is None:
            self._saved_at_s = now_s
        every_s = self.cadence.checkpoint_every_s
        if every_s is None or now_s - self._saved_at_s < every_s or self._saved == self._position:
            return None
        return Checkpoint(self._position, phase_boundary=False)

    def _lease(self, samples_per_s: float | None) -> Run:
        assert not isinstance(self._last, (Stop, Done)), "a rank asks on after the end"
        spec = self.plan.rows[self._position.epoch]
        start = self._position.samples_done
        lease_s = lease_seconds(self.cadence, self._save_s)
        return Run(spec, start, lease_end(spec, start, samples_per_s=samples_per_s, lease_s=lease_s))


@dataclass(frozen=True)
class _StopRequest:
    reason: str
    resize: bool


class _Round:
    """The acknowledgements of one transition, reckoned as they come: every rank asks often how they stand."""

    def __init__(self, world_size: int):
        self.agreement: Agreement = Pending(tuple(range(world_size)))
        self._missing = set(range(world_size))
        self._wrong: dict[int, str] = {}
        self._orders: dict[int, str] = {}

    def add(self, acknowledgement: Acknowledgement, wrong: str | None, *, epoch: int) -> None:
        """Count a rank's answer; `wrong` says in what it differs from the plan."""
        rank = acknowledgement.rank
        self._missing.discard(rank)
        self._orders[rank] = acknowledgement.order_hash
        if wrong:
            self._wrong[rank] = wrong
        self.agreement = self._reckon(epoch)

    def _reckon(self, epoch: int) -> Agreement:
        if self._wrong:
            return Disagreed("; ".join(reason for _, reason in sorted(self._wrong.items())))
        if self._missing:
            return Pending(tuple(sorted(self._missing)))
        if len(set(self._orders.values())) > 1:
            return Disagreed(
                f"ranks hold different sample orders for epoch {epoch}: {dict(sorted(self._orders.items()))}"
            )
        return Agreed()


def opening(plan: Plan, start: Position, cadence: Cadence, *, evaluated: bool) -> list[Directive]:
    """What comes before the first lease: at an epoch's start all that was still owed when the state was saved."""
    owed: list[Directive] = []
    if start.samples_done == 0 and start.epoch > 0:
        closing = epoch_end(plan, plan.rows[start.epoch - 1], cadence)
        owed = [directive for directive in closing if not isinstance(directive, Checkpoint)]
        if evaluated:
            owed = [d for d in owed if not isinstance(d, Evaluate) or d.moment == "after_transition"]
    if not any(isinstance(directive, (Transition, Done)) for directive in owed):
        owed.append(Transition(plan.rows[start.epoch], previous=None))
    return owed


def epoch_end(plan: Plan, spec: EpochSpec, cadence: Cadence) -> list[Directive]:
    """What follows once `spec`'s epoch is trained, up to the next lease: evaluate, save, change over.

    After a transition the same weights are evaluated once more, unless neither the evaluation's size nor the norms'
    statistics are others: then the number from before still holds.
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
        resolution = cadence.evaluation_resolution or following.resolution
        size_changes = cadence.evaluation_resolution is None and following.resolution != spec.resolution
        if cadence.evaluate_every_epochs and (size_changes or following.recalibration_batches):
            directives.append(Evaluate(following.epoch, resolution, "after_transition"))
    return directives


def lease_end(spec: EpochSpec, start: int, *, samples_per_s: float | None, lease_s: float) -> int:
    """Where a lease from `start` ends: whole steps of about `lease_s` in all; one step if the pace is unknown."""
    steps = max(1, int((samples_per_s or 0.0) * lease_s / spec.global_batch))
    return min(start + steps * spec.global_batch, spec.num_samples)


def lease_seconds(cadence: Cadence, save_s: float) -> float:
    """How far ahead ranks may run: as the job says, or less where half a grace period must hold a lease and a save."""
    if cadence.grace_s is None:
        return cadence.lease_s
    return min(cadence.lease_s, max(0.0, cadence.grace_s / 2 - save_s))


def _describe(position: Position) -> str:
    return f"epoch {position.epoch}, sample {position.samples_done}"

"""One worker's life: restore, then walk the coordinator's directives until told to stop."""

from __future__ import annotations

import dataclasses
import time
from typing import Protocol

from launcher import failpoints
from launcher.coordinator import (
    Acknowledgement,
    Agreed,
    Agreement,
    Checkpoint,
    CoordinationError,
    Directive,
    Disagreed,
    Done,
    Evaluate,
    Run,
    Stop,
    Transition,
)
from launcher.events import CheckpointSaved, EpochTrained, Evaluated, Event, Progress, SamplesReplaced, TransitionMade
from launcher.plan import Plan, Position
from launcher.saving import Saver
from launcher.trainer import SpanResult, Trainer

_AGREEMENT_POLL_S = 0.02
_DAMAGE_NAMED = 10


class CoordinatorLink(Protocol):
    """How a worker reaches the coordinator: a direct call in *single*, an actor call in *ray*."""

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive: ...

    def acknowledge(self, acknowledgement: Acknowledgement) -> None: ...

    def agreement(self, turn: int) -> Agreement: ...

    def emit(self, event: Event) -> None: ...


class Worker:
    """Carries out directives with a trainer; rank 0 reports."""

    def __init__(
        self,
        *,
        rank: int,
        plan: Plan,
        position: Position,
        coordinator: CoordinatorLink,
        trainer: Trainer,
        saver: Saver,
        transition_timeout_s: float,
        last_top1: float | None,
    ):
        self.rank = rank
        self.plan = plan
        self.position = position
        self._coordinator = coordinator
        self._trainer = trainer
        self._saver = saver
        self._transition_timeout_s = transition_timeout_s
        self._last_top1 = last_top1
        self._samples_per_s: float | None = None
        self._spans: list[SpanResult] = []
        self._unfinished_transition: TransitionMade | None = None

    def run(self) -> Stop | Done:
        """Walk the directives to the end, and tell how it ended."""
        turn = 0
        try:
            while True:
                directive = self._coordinator.next(
                    rank=self.rank, turn=turn, position=self.position, samples_per_s=self._samples_per_s
                )
                if not isinstance(directive, Evaluate):
                    self._report_transition(top1_after=None)
                match directive:
                    case Transition():
                        self._change_over(directive, turn)
                    case Run():
                        self._train(directive)
                    case Evaluate():
                        self._evaluate(directive)
                    case Checkpoint():
                        self._save(directive)
                    case Stop() | Done():
                        self._report_replaced(self.position.epoch)
                        return directive
                turn += 1
        finally:
            self._trainer.feed.close()

    def _change_over(self, transition: Transition, turn: int) -> None:
        spec, previous = transition.spec, transition.previous
        began = time.perf_counter()
        in_use = self._trainer.feed.open(spec, self.position.samples_done)
        self._coordinator.acknowledge(
            Acknowledgement(
                rank=self.rank,
                turn=turn,
                resolution=in_use.resolution,
                batch_per_worker=in_use.batch_per_worker,
                learning_rate=self.plan.learning_rate(self.position),
                order_hash=in_use.order_hash,
                plan_fingerprint=self._trainer.plan.fingerprint,
            )
        )
        self._await_agreement(turn)
        failpoints.hit("worker.transition_agreed", rank=self.rank)
        if previous is not None:
            self._unfinished_transition = TransitionMade(
                epoch=spec.epoch,
                phase=spec.phase,
                phase_name=spec.phase_name,
                resolution_before=previous.resolution,
                resolution_after=spec.resolution,
                global_batch_before=previous.global_batch,
                global_batch_after=spec.global_batch,
                learning_rate=spec.lr_start,
                seconds=time.perf_counter() - began,
                top1_before=self._last_top1,
                top1_after=None,
            )

    def _await_agreement(self, turn: int) -> None:
        deadline = time.monotonic() + self._transition_timeout_s
        while not isinstance(agreement := self._coordinator.agreement(turn), Agreed):
            if isinstance(agreement, Disagreed):
                raise CoordinationError(agreement.reason)
            if time.monotonic() > deadline:
                missing = ", ".join(str(rank) for rank in agreement.missing)
                raise CoordinationError(
                    f"no acknowledgement from rank {missing} within {self._transition_timeout_s:g} s at the transition "
                    f"to epoch {self.position.epoch}; if its data is slow, raise run.transition_timeout_s"
                )
            time.sleep(_AGREEMENT_POLL_S)

    def _train(self, lease: Run) -> None:
        span = self._trainer.train(lease.spec, lease.start, lease.until)
        self._spans.append(span)
        self._samples_per_s = span.samples / span.seconds
        self.position = self.plan.after(self.position, span.samples)
        failpoints.hit("worker.lease_trained", rank=self.rank)
        if self.position.epoch != lease.spec.epoch:
            self._report_epoch(lease)
        elif self.rank == 0:
            self._coordinator.emit(
                Progress(
                    epoch=lease.spec.epoch,
                    samples_done=lease.until,
                    num_samples=lease.spec.num_samples,
                    resolution=lease.spec.resolution,
                    images_per_s=self._samples_per_s,
                    loss=span.loss_sum / (span.samples / self.plan.world_size),
                    learning_rate=self.plan.learning_rate(Position(lease.spec.epoch, lease.start)),
                )
            )

    def _report_epoch(self, lease: Run) -> None:
        """Sum the epoch up over all ranks: a collective, at the same directive on every rank."""
        spec, spans = lease.spec, self._spans
        self._spans = []
        samples = sum(span.samples for span in spans)
        seconds = sum(span.seconds for span in spans)
        loss_sum = self._trainer.sum_over_ranks(sum(span.loss_sum for span in spans))
        self._report_replaced(spec.epoch)
        if self.rank != 0:
            return
        self._coordinator.emit(
            EpochTrained(
                epoch=spec.epoch,
                phase=spec.phase,
                phase_name=spec.phase_name,
                resolution=spec.resolution,
                global_batch=spec.global_batch,
                samples=samples,
                seconds=seconds,
                images_per_s=samples / seconds,
                data_wait_s=sum(span.data_wait_s for span in spans),
                loss=loss_sum / samples,
                learning_rate=self.plan.learning_rate(Position(spec.epoch, spec.num_samples - spec.global_batch)),
            )
        )

    def _evaluate(self, directive: Evaluate) -> None:
        began = time.perf_counter()
        scores = self._trainer.evaluate(directive.resolution)
        self._last_top1 = scores.top1
        self._report_replaced(directive.epoch)
        if self.rank == 0:
            self._coordinator.emit(
                Evaluated(
                    epoch=directive.epoch,
                    phase=self.plan.rows[directive.epoch].phase,
                    resolution=directive.resolution,
                    moment=directive.moment,
                    samples=scores.samples,
                    seconds=time.perf_counter() - began,
                    top1=scores.top1,
                    top5=scores.top5,
                    loss=scores.loss,
                )
            )
        self._report_transition(top1_after=scores.top1)

    def _report_replaced(self, epoch: int) -> None:
        replaced = self._trainer.take_replaced()
        if replaced:
            named = tuple(str(error) for error in replaced[:_DAMAGE_NAMED])
            self._coordinator.emit(SamplesReplaced(rank=self.rank, epoch=epoch, samples=len(replaced), damage=named))

    def _report_transition(self, *, top1_after: float | None) -> None:
        """Emit the transition once its second accuracy is known, or will not come."""
        if self._unfinished_transition is not None and self.rank == 0:
            self._coordinator.emit(dataclasses.replace(self._unfinished_transition, top1_after=top1_after))
        self._unfinished_transition = None

    def _save(self, directive: Checkpoint) -> None:
        began = time.perf_counter()
        saved = self._saver.save(self._trainer, directive.position, last_top1=self._last_top1)
        if saved is not None:
            self._coordinator.emit(
                CheckpointSaved(
                    epoch=directive.position.epoch,
                    samples_done=directive.position.samples_done,
                    phase_boundary=directive.phase_boundary,
                    path=saved.path.name,
                    num_bytes=saved.num_bytes,
                    seconds=time.perf_counter() - began,
                )
            )

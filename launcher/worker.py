"""One worker's life: restore, then walk the coordinator's directives until told to stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
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
    LateError,
    Run,
    Stop,
    Transition,
)
from launcher.events import CheckpointSaved, EpochTrained, Evaluated, Event, Progress, SamplesReplaced, TransitionMade
from launcher.plan import EpochSpec, Plan, Position
from launcher.saving import Saved, Saver, Standing
from launcher.trainer import SpanResult, Trainer

_AGREEMENT_POLL_S = 0.02
_AHEAD_S = 0.1
"""How long before a lease's end the next one is asked for; a call to the coordinator takes a tenth of it."""
_DAMAGE_NAMED = 10


class CoordinatorLink(Protocol):
    """How a worker reaches the coordinator: a direct call in *single*, an actor call in *ray*."""

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive: ...

    def prefetch(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None, after_s: float
    ) -> None:
        """Ask in the background, `after_s` from now, what `next` will be asked with the same arguments."""

    def heed(self, steps_begun: Callable[[], int]) -> None:
        """Tell the coordinator from now on how far this rank is, unless it sees that itself."""

    def note_save(self, seconds: float) -> None: ...

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
        standing: Standing,
    ):
        self.rank = rank
        self.plan = plan
        self.position = position
        self._coordinator = coordinator
        self._trainer = trainer
        self._saver = saver
        self._transition_timeout_s = transition_timeout_s
        self._standing = standing
        # What others trained almost to an epoch's end was saved before that.
        self._resumed_at = None if standing.epoch.samples else position
        self._samples_per_s: float | None = None
        self._unfinished_transition: TransitionMade | None = None

    def run(self) -> Stop | Done:
        """Walk the directives to the end, and tell how it ended, with everything saved that was to be."""
        try:
            if self._standing.epoch.samples and self.position.samples_done == 0:
                self._report_epoch(self.plan.rows[self.position.epoch - 1])  # Others trained it almost to its end.
            outcome = self._walk()
            self._report_saved(self._saver.take_saved(wait=True))
        except Exception:
            self._saver.settle()
            raise
        finally:
            self._trainer.feed.close()
        return outcome

    def _walk(self) -> Stop | Done:
        turn = 0
        while True:
            directive = self._coordinator.next(
                rank=self.rank, turn=turn, position=self.position, samples_per_s=self._samples_per_s
            )
            self._report_saved(self._saver.take_saved())
            if not isinstance(directive, Evaluate):
                self._report_transition(top1_after=None)
            match directive:
                case Transition():
                    self._change_over(directive, turn)
                case Run():
                    self._train(directive, turn)
                case Evaluate():
                    self._evaluate(directive)
                case Checkpoint():
                    self._save(directive)
                case Stop() | Done():
                    self._report_replaced(self.position.epoch)
                    return directive
            turn += 1

    def _change_over(self, transition: Transition, turn: int) -> None:
        spec, previous = transition.spec, transition.previous
        began = time.perf_counter()
        in_use = self._trainer.feed.open(spec, self.position.samples_done)
        failpoints.hit("worker.before_acknowledgement", rank=self.rank)
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
        agreed = time.perf_counter()
        failpoints.hit("worker.transition_agreed", rank=self.rank)
        if previous is not None:
            if spec.recalibration_batches:
                self._trainer.recalibrate_norms(spec)
            self._unfinished_transition = TransitionMade(
                epoch=spec.epoch,
                phase=spec.phase,
                phase_name=spec.phase_name,
                resolution_before=previous.resolution,
                resolution_after=spec.resolution,
                global_batch_before=previous.global_batch,
                global_batch_after=spec.global_batch,
                learning_rate=spec.lr_start,
                seconds=agreed - began,
                norm="recalibrated" if spec.recalibration_batches else "frozen" if spec.norm_frozen else "none",
                norm_seconds=time.perf_counter() - agreed if spec.recalibration_batches else 0.0,
                top1_before=self._standing.last_top1,
                top1_after=None,
            )

    def _await_agreement(self, turn: int) -> None:
        deadline = time.monotonic() + self._transition_timeout_s
        while not isinstance(agreement := self._coordinator.agreement(turn), Agreed):
            if isinstance(agreement, Disagreed):
                raise CoordinationError(agreement.reason)
            if time.monotonic() > deadline:
                missing = ", ".join(str(rank) for rank in agreement.missing)
                raise LateError(
                    f"no acknowledgement from rank {missing} within {self._transition_timeout_s:g} s at the transition "
                    f"to epoch {self.position.epoch}; if its data is slow, raise run.transition_timeout_s"
                )
            time.sleep(_AGREEMENT_POLL_S)

    def _train(self, lease: Run, turn: int) -> None:
        failpoints.hit("worker.lease_received", rank=self.rank)
        end = self.plan.after(self.position, lease.until - lease.start)
        self._ask_ahead(turn + 1, end, lease.until - lease.start)
        span = self._trainer.train(lease.spec, lease.start, lease.until)
        self._standing = dataclasses.replace(self._standing, epoch=self._standing.epoch + span)
        self._samples_per_s = span.samples / span.seconds
        self.position = end
        failpoints.hit("worker.lease_trained", rank=self.rank)
        if self.position.epoch != lease.spec.epoch:
            self._report_epoch(lease.spec)
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

    def _ask_ahead(self, turn: int, position: Position, samples: int) -> None:
        """Have the next directive at hand when this lease ends, if the pace tells when that will be."""
        pace = self._samples_per_s
        if pace is not None and samples / pace > _AHEAD_S:
            self._coordinator.prefetch(
                rank=self.rank, turn=turn, position=position, samples_per_s=pace, after_s=samples / pace - _AHEAD_S
            )

    def _report_epoch(self, spec: EpochSpec) -> None:
        """Sum the epoch up over all ranks: a collective, at the same place on every rank."""
        trained = self._standing.epoch
        self._standing = dataclasses.replace(self._standing, epoch=SpanResult())
        loss_sum = self._trainer.sum_over_ranks(trained.loss_sum)
        failpoints.hit("worker.epoch_trained", rank=self.rank)
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
                samples=trained.samples,
                seconds=trained.seconds,
                images_per_s=trained.samples / trained.seconds,
                data_wait_s=trained.data_wait_s,
                loss=loss_sum / trained.samples,
                learning_rate=self.plan.learning_rate(Position(spec.epoch, spec.num_samples - spec.global_batch)),
            )
        )

    def _evaluate(self, directive: Evaluate) -> None:
        began = time.perf_counter()
        scores = self._trainer.evaluate(directive.resolution)
        evaluated_epoch = directive.epoch if directive.moment == "epoch_end" else self._standing.evaluated_epoch
        self._standing = dataclasses.replace(self._standing, last_top1=scores.top1, evaluated_epoch=evaluated_epoch)
        if directive.moment == "epoch_end" and self.position == self._resumed_at:
            self._standing = self._standing.at(self.position)  # The stop had saved it before its accuracy was known.
        failpoints.hit("worker.evaluated", rank=self.rank)
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
        self._standing = self._standing.at(directive.position)
        self._report_saved(self._saver.save(self._trainer, directive.position, self._standing))
        failpoints.hit("saving.copied", rank=self.rank)

    def _report_saved(self, saved: Saved | None) -> None:
        if saved is None:
            return
        self._coordinator.note_save(saved.stall_s + saved.seconds)
        self._coordinator.emit(
            CheckpointSaved(
                epoch=saved.info.position.epoch,
                samples_done=saved.info.position.samples_done,
                phase_boundary=saved.info.position in self.plan.phase_boundaries(),
                path=saved.info.path.name,
                num_bytes=saved.info.num_bytes,
                seconds=saved.seconds,
                stall_s=saved.stall_s,
            )
        )

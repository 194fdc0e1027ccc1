"""The step loop: train a span of an epoch at one resolution, and evaluate. It knows nothing of phases."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ffcv_datasets.batches import BatchSource
from ffcv_datasets.decoder import DataError
from launcher import failpoints
from launcher.augmentation import Augmenter
from launcher.batch_norm import freeze, norm_layers, recalibrate
from launcher.config import Ema, Evaluation, Trainable
from launcher.device_batches import DeviceBatch, Transfer
from launcher.examination import Examination
from launcher.model_input import ModelInput, Pixels
from launcher.models import Rates, let_learn, set_training
from launcher.plan import EpochSpec, Plan, Position
from launcher.replica import dissolve, replicate
from launcher.tasks.classification import Classification, Scores
from launcher.training_feed import TrainingFeed


class NonFiniteLossError(RuntimeError):
    """Training has diverged."""


@dataclass(frozen=True)
class SpanResult:
    """One rank's part of a span: sums, so that spans add up to an epoch."""

    samples: int = 0
    """Over all ranks."""
    seconds: float = 0.0
    data_wait_s: float = 0.0
    loss_sum: float = 0.0
    """Of this rank's samples."""

    def __add__(self, other: SpanResult) -> SpanResult:
        return SpanResult(
            samples=self.samples + other.samples,
            seconds=self.seconds + other.seconds,
            data_wait_s=self.data_wait_s + other.data_wait_s,
            loss_sum=self.loss_sum + other.loss_sum,
        )


class Trainer:
    """Model, optimizer and data of one rank."""

    plan: Plan
    rank: int
    device: torch.device

    model: nn.Module
    """The bare model, whose state is saved."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scales the loss under fp16; passes it through otherwise."""
    average: AveragedModel | None
    """The weights' and buffers' moving average, if the job wants one."""
    feed: TrainingFeed
    examination: Examination | None
    """How models are judged; None without validation data."""
    steps_begun: int
    """In this process; tells a rank that works from one that is stuck."""

    def __init__(
        self,
        *,
        plan: Plan,
        rank: int,
        device: torch.device,
        precision: torch.dtype,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        task: Classification,
        augmenter: Augmenter,
        pixels: Pixels,
        train_data: BatchSource,
        val_data: BatchSource | None,
        transfer: Transfer,
        evaluation: Evaluation,
        clip_norm: float | None = None,
    ):
        self.plan = plan
        self.rank = rank
        self.device = device
        self.model = model
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
        self.average = _average(model, ema) if ema else None
        self.steps_begun = 0
        self._ema = ema
        self._clip_norm = clip_norm
        self._trainable: Trainable = "all"
        self._input = ModelInput(pixels, device, precision)
        self._replica = replicate(model, device, resolution=plan.rows[0].resolution) if plan.world_size > 1 else model
        self._task = task
        self._augmenter = augmenter
        self._rates = Rates(model)
        self.feed = TrainingFeed(train_data, transfer, plan=plan, rank=rank)
        self._replaced: list[DataError] = []
        self.examination = None
        if val_data is not None:
            self.examination = Examination(
                val_data, transfer, task, self._input, evaluation, self._replaced, rank, plan.world_size
            )

    def train(self, spec: EpochSpec, start: int, until: int) -> SpanResult:
        """Train samples `start` to `until` of an epoch, counted over all ranks.

        Raises NonFiniteLossError, checked once for the span so that no step waits for the device.
        """
        began, waited_before = time.perf_counter(), self.feed.waited_s
        loss_sum = torch.zeros((), device=self.device)
        self._set_up(spec)
        for done in range(start, until, spec.global_batch):
            self.steps_begun += 1
            loss_sum += self._step(spec, done)
            self._update_average(spec, done)
            failpoints.hit("trainer.step", rank=self.rank)
        total = float(loss_sum)
        if not np.isfinite(total):
            learning_rate = self.plan.learning_rate(Position(spec.epoch, start))
            frozen = "norms that are frozen bear less: set norm.kind to recalibrate, or " if spec.norm_frozen else ""
            raise NonFiniteLossError(
                f"the loss is {total} between samples {start} and {until} of epoch {spec.epoch} on rank {self.rank} "
                f"(learning rate {learning_rate:g}); {frozen}lower learning_rate.base, set optimizer.clip_norm, "
                "or add warmup_epochs"
            )
        seconds = time.perf_counter() - began
        return SpanResult(until - start, seconds, self.feed.waited_s - waited_before, total)

    def try_step(self, spec: EpochSpec) -> None:
        """A step as the epoch's, on drawn pixels, to see whether it can be done: a collective. It changes the state."""
        self._set_up(spec)
        shape = (spec.batch_per_worker, spec.resolution, spec.resolution, 3)
        pixels = torch.randint(256, shape, dtype=torch.uint8, device=self.device)
        labels = torch.zeros(spec.batch_per_worker, dtype=torch.int64, device=self.device)
        num_batches = min(2, spec.accumulate)
        batch = DeviceBatch(pixels, labels, (), np.zeros(spec.batch_per_worker, np.int64))
        self._update(spec, [batch] * num_batches, num_batches, learning_rate=0.0)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _set_up(self, spec: EpochSpec) -> None:
        """What learns, in which mode what computes, and how often parts are dropped."""
        self._let_learn(spec)
        self._rates.set(dropout=spec.dropout, stochastic_depth=spec.stochastic_depth)
        self._replica.train()
        set_training(self.model, spec.trainable)
        if spec.norm_frozen:
            freeze(self.model)

    def _let_learn(self, spec: EpochSpec) -> None:
        """Freeze all but what the epoch trains: a collective where that has changed, as gradients are regrouped."""
        if spec.trainable == self._trainable:
            return
        self._trainable = spec.trainable
        let_learn(self.model, spec.trainable)
        if isinstance(self._replica, DistributedDataParallel):
            dissolve(self._replica)
            self._replica = replicate(self.model, self.device, resolution=spec.resolution)

    def _step(self, spec: EpochSpec, done: int) -> Tensor:
        """One update of the weights by the global batch at sample `done`; the sum of its losses over this rank."""
        batches = (self.feed.next(spec, done, part) for part in range(spec.accumulate))
        return self._update(spec, batches, spec.accumulate, self.plan.learning_rate(Position(spec.epoch, done)))

    def _update(
        self, spec: EpochSpec, batches: Iterable[DeviceBatch], num_batches: int, learning_rate: float
    ) -> Tensor:
        """One update of the weights by this rank's batches and the other ranks'; the sum of its losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_factor"]
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            with self._summing_gradients(last=number == num_batches):
                self._replaced.extend(batch.replaced)
                images, labels = self._augmented(batch, spec)
                with self._input.autocast():
                    loss = self._task.loss(self._replica, images, labels)
                torch.autograd.backward(self.scaler.scale(loss / num_batches))
            loss_sum += loss.detach() * len(batch.labels)
        self._clip_gradient()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss_sum

    def _clip_gradient(self) -> None:
        """Of the whole step, whatever the number of batches that it took, and of its own size."""
        if self._clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)

    def _summing_gradients(self, *, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients with the last batch of a step alone."""
        if last or not isinstance(self._replica, DistributedDataParallel):
            return nullcontext()
        return self._replica.no_sync()

    def _update_average(self, spec: EpochSpec, done: int) -> None:
        if self.average is None or self._ema is None:
            return
        step = (done - spec.offset) // spec.global_batch + 1
        if step % self._ema.every_steps == 0:
            self.average.update_parameters(self.model)

    def recalibrate_norms(self, spec: EpochSpec) -> None:
        """Estimate the norms' statistics from `spec`'s epoch, whose first batch is not trained yet: a collective.

        Those of the average, too, from its own weights. Made again it gives the same, so a resume may repeat it.
        """
        models = [self.model, self.outcome] if self.average else [self.model]
        if not norm_layers(self.model):
            return
        sum_over_ranks = dist.all_reduce if self.plan.world_size > 1 else None
        with self._input.autocast(), closing(self._beginning(spec)) as inputs:
            recalibrate(models, inputs, sum_over_ranks=sum_over_ranks)

    def _beginning(self, spec: EpochSpec) -> Generator[Tensor, None, None]:
        with closing(self.feed.beginning(spec, spec.recalibration_batches)) as batches:
            for batch in batches:
                failpoints.hit("norm.recalibrating", rank=self.rank)
                yield self._augmented(batch, spec)[0]

    def evaluate(self, resolution: int) -> Scores:
        """Judge every validation image once over all ranks: a collective."""
        assert self.examination is not None
        self.synchronise_buffers()
        return self.examination.examine(self.outcome, resolution)

    def synchronise_buffers(self) -> None:
        """Give every rank rank 0's buffers (BatchNorm statistics), as DistributedDataParallel does before each step."""
        if self.plan.world_size > 1:
            for model in (self.model, self.outcome) if self.average else (self.model,):
                for buffer in model.buffers():
                    dist.broadcast(buffer, src=0)

    @property
    def outcome(self) -> nn.Module:
        """The model that training is for: the average where there is one."""
        if self.average is None:
            return self.model
        averaged: nn.Module = self.average.module
        return averaged

    def sum_over_ranks(self, value: float) -> float:
        """A collective: every rank gives its number and gets the sum."""
        if self.plan.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def _augmented(self, batch: DeviceBatch, spec: EpochSpec) -> tuple[Tensor, Tensor]:
        """The model's input (N, 3, H, W) and its labels: (N,), or (N, num_classes) where images are mixed."""
        pixels = self._augmenter.images(batch.pixels, batch.samples, spec)
        return self._augmenter.mix(self._input.normalise(pixels), batch.labels, batch.samples, spec)

    def take_replaced(self) -> list[DataError]:
        """What was wrong with the samples in whose place others stood, since the last call: this rank's."""
        replaced = self._replaced.copy()
        self._replaced.clear()
        return replaced


def _average(model: nn.Module, ema: Ema) -> AveragedModel:
    update = get_ema_multi_avg_fn(ema.decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)

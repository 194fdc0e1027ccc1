"""The step loop: train a span of an epoch at one resolution, and evaluate. It knows nothing of phases."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ffcv_datasets.batches import Batch, BatchIterator
from ffcv_datasets.crop import CentreView, TrainView
from ffcv_datasets.loader import Loader
from launcher.config import Evaluation
from launcher.plan import EpochSpec, Plan, Position
from launcher.sample_order import evaluation_batches, order, order_hash, rank_batches
from launcher.tasks.classification import Classification, Scores


class NonFiniteLossError(RuntimeError):
    """Training has diverged."""


@dataclass(frozen=True)
class SpanResult:
    """One rank's part of a span: sums, so that spans add up to an epoch."""

    samples: int
    """Over all ranks."""
    seconds: float
    data_wait_s: float
    loss_sum: float
    """Of this rank's samples."""


@dataclass(frozen=True)
class EpochInUse:
    """What a rank really uses for an epoch, read off its first decoded batch."""

    resolution: int
    batch_per_worker: int
    order_hash: str


@dataclass(frozen=True)
class Pixels:
    """How uint8 pixels become the model's input: channel statistics in 0..255."""

    channel_mean: tuple[float, float, float]
    channel_std: tuple[float, float, float]


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

    def __init__(
        self,
        *,
        plan: Plan,
        rank: int,
        device: torch.device,
        precision: torch.dtype,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        task: Classification,
        pixels: Pixels,
        train_data: Loader,
        val_data: Loader | None,
        evaluation: Evaluation,
    ):
        self.plan = plan
        self.rank = rank
        self.device = device
        self.model = model
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
        self._precision = precision
        self._replica = _replicate(model, device) if plan.world_size > 1 else model
        self._task = task
        self._mean = torch.tensor(pixels.channel_mean, device=device).view(1, 3, 1, 1)
        self._scale = 1 / torch.tensor(pixels.channel_std, device=device).view(1, 3, 1, 1)
        self._train_data = train_data
        self._val_data = val_data
        self._evaluation = evaluation
        self._epoch: _OpenEpoch | None = None

    def open_epoch(self, spec: EpochSpec, start: int) -> EpochInUse:
        """Start decoding `spec`'s epoch from sample `start` on, and tell what comes out."""
        self.close_epoch()
        epoch_order = order(self.plan.seed, spec.epoch, self.plan.num_samples)
        batches = rank_batches(
            epoch_order,
            start=start,
            until=spec.num_samples,
            global_batch=spec.global_batch,
            rank=self.rank,
            world_size=self.plan.world_size,
        )
        view = TrainView(self.plan.seed, spec.epoch, spec.resolution, crop_scale=spec.crop_scale)
        self._epoch = _OpenEpoch(Position(spec.epoch, start), self._train_data.batches(batches, view))
        first = self._epoch.peek()
        return EpochInUse(first.images.shape[1], len(first.labels), order_hash(epoch_order))

    def close_epoch(self) -> None:
        """Drop the epoch being decoded, if any; safe to call twice."""
        if self._epoch is not None:
            self._epoch.iterator.close()
            self._epoch = None

    def train(self, spec: EpochSpec, start: int, until: int) -> SpanResult:
        """Train samples `start` to `until` of an epoch, counted over all ranks.

        Raises NonFiniteLossError, checked once for the span so that no step waits for the device.
        """
        here = Position(spec.epoch, start)
        if self._epoch is None or self._epoch.position != here:
            self.open_epoch(spec, start)
        assert self._epoch is not None
        epoch = self._epoch
        began, waited_before = time.perf_counter(), epoch.waited_s
        loss_sum = torch.zeros((), device=self.device)
        self._replica.train()
        for done in range(start, until, spec.global_batch):
            batch = epoch.next()
            loss = self._step(batch, self.plan.learning_rate(Position(spec.epoch, done)))
            loss_sum += loss.detach() * len(batch.labels)
        epoch.position = Position(spec.epoch, until)
        if until == spec.num_samples:
            self.close_epoch()
        total = float(loss_sum)
        if not np.isfinite(total):
            raise NonFiniteLossError(
                f"the loss is {total} between samples {start} and {until} of epoch {spec.epoch} on rank {self.rank} "
                f"(learning rate {self.plan.learning_rate(here):g}); lower learning_rate.base, or add warmup_epochs"
            )
        seconds = time.perf_counter() - began
        return SpanResult(until - start, seconds, epoch.waited_s - waited_before, total)

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        images, labels = self._to_device(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._task.loss(self._replica, images, labels)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    @torch.inference_mode()
    def evaluate(self, resolution: int) -> Scores:
        """Judge every validation image once over all ranks: a collective."""
        assert self._val_data is not None
        self.synchronise_buffers()
        self.model.eval()
        shares = evaluation_batches(
            self._val_data.num_samples,
            batch=self._evaluation.batch_per_worker,
            rank=self.rank,
            world_size=self.plan.world_size,
        )
        view = CentreView(resolution, crop_ratio=self._evaluation.crop_ratio)
        with self._val_data.batches(shares, view) as batches:
            for batch in batches:
                images, labels = self._to_device(batch)
                with self._autocast():
                    self._task.judge(self.model, images, labels)
        return self._task.scores(self._val_data.num_samples)

    def synchronise_buffers(self) -> None:
        """Give every rank rank 0's buffers (BatchNorm statistics), as DistributedDataParallel does before each step."""
        if self.plan.world_size > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)

    def sum_over_ranks(self, value: float) -> float:
        """A collective: every rank gives its number and gets the sum."""
        if self.plan.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """uint8 (N, H, W, 3) pixels -> normalised float32 (N, 3, H, W), channels last in memory, and (N,) labels."""
        pixels = torch.from_numpy(batch.images).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        images = (pixels.float() - self._mean) * self._scale
        return images, torch.from_numpy(batch.labels).to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._precision)


class _OpenEpoch:
    """An epoch being decoded: the iterator, where it stands, and how long its consumer has waited."""

    def __init__(self, position: Position, iterator: BatchIterator):
        self.position = position
        self.iterator = iterator
        self.waited_s = 0.0
        self._peeked: Batch | None = None

    def peek(self) -> Batch:
        """The next batch, which `next` will give again."""
        if self._peeked is None:
            self._peeked = self.next()
        return self._peeked

    def next(self) -> Batch:
        if self._peeked is not None:
            batch, self._peeked = self._peeked, None
            return batch
        began = time.perf_counter()
        batch = next(self.iterator)
        self.waited_s += time.perf_counter() - began
        return batch


def _replicate(model: nn.Module, device: torch.device) -> nn.Module:
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

"""One rank's training batches: an epoch from any place on, and the next epoch without a gap."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from ffcv_datasets.batches import BatchSource, BatchStream
from ffcv_datasets.crop import CentreView, TrainView, View
from launcher.device_batches import DeviceBatch, DeviceBatches, Transfer
from launcher.plan import EpochSpec, Plan, Position
from launcher.sample_order import order, order_hash, rank_batches


@dataclass(frozen=True)
class EpochInUse:
    """What a rank really uses for an epoch, read off its first decoded batch."""

    resolution: int
    batch_per_worker: int
    order_hash: str


class TrainingFeed:
    """Decodes the epoch in use, and behind it the next one, in the same memory."""

    waited_s: float
    """How long its user has waited for decoded batches, in all."""

    def __init__(self, loader: BatchSource, transfer: Transfer, *, plan: Plan, rank: int):
        self.waited_s = 0.0
        self._loader = loader
        self._transfer = transfer
        self._plan = plan
        self._rank = rank
        self._epoch: _OpenEpoch | None = None
        self._following: _OpenEpoch | None = None

    def open(self, spec: EpochSpec, start: int) -> EpochInUse:
        """Turn to `spec`'s epoch, from sample `start` on; wait for its first batch and tell what comes out."""
        self._turn_to(spec, start)
        assert self._epoch is not None
        first = self._peek(self._epoch)
        return EpochInUse(first.pixels.shape[1], len(first.labels), self._epoch.order_hash)

    def _turn_to(self, spec: EpochSpec, start: int) -> None:
        here = Position(spec.epoch, start)
        if self._epoch is not None and self._epoch.position == here:
            return
        if self._following is None or self._following.position != here:
            self.close()
            self._following = self._decode(spec, start, until=spec.num_samples, after=None)
        if self._epoch is not None:
            self._epoch.close()
        self._epoch, self._following = self._following, None

    def next(self, spec: EpochSpec, start: int, part: int = 0) -> DeviceBatch:
        """The `part`-th of the `spec.accumulate` batches that are this rank's share of the global batch at `start`."""
        self._turn_to(spec, start)
        assert self._epoch is not None
        batch = self._peek(self._epoch)
        self._epoch.peeked = None
        if part + 1 == spec.accumulate:
            self._epoch.position = Position(spec.epoch, start + spec.global_batch)
            self._follow(spec, self._epoch)
        return batch

    def beginning(self, spec: EpochSpec, num_batches: int) -> DeviceBatches:
        """This rank's batches of the first `num_batches` global ones of `spec`'s epoch, beside those in use."""
        with closing(self._decode(spec, 0, until=num_batches * spec.global_batch, after=None)) as epoch:
            yield from epoch.batches

    def _peek(self, epoch: _OpenEpoch) -> DeviceBatch:
        if epoch.peeked is None:
            began = time.perf_counter()
            epoch.peeked = next(epoch.batches)
            self.waited_s += time.perf_counter() - began
        return epoch.peeked

    def _follow(self, spec: EpochSpec, epoch: _OpenEpoch) -> None:
        """Towards the end of an epoch begin the next one, so that its first batches are decoded meanwhile."""
        batches_left = (spec.num_samples - epoch.position.samples_done) // spec.global_batch * spec.accumulate
        is_last = spec.epoch + 1 == len(self._plan.rows)
        if self._following is None and not is_last and batches_left <= self._loader.batches_ahead + 1:
            following = self._plan.rows[spec.epoch + 1]
            self._following = self._decode(following, 0, until=following.num_samples, after=epoch.iterator)

    def _decode(self, spec: EpochSpec, start: int, *, until: int, after: BatchStream | None) -> _OpenEpoch:
        plan = self._plan
        epoch_order = order(plan.seed, spec.epoch, plan.num_samples, window=plan.shuffle_window_samples)
        batches = rank_batches(
            epoch_order,
            start=start,
            until=until,
            global_batch=spec.global_batch,
            rank=self._rank,
            world_size=plan.world_size,
            accumulate=spec.accumulate,
        )
        iterator = self._loader.batches(batches, _view(plan.seed, spec), after=after)
        return _OpenEpoch(Position(spec.epoch, start), order_hash(epoch_order), iterator, self._transfer)

    def close(self) -> None:
        """Drop what is being decoded; safe to call twice."""
        for epoch in (self._epoch, self._following):
            if epoch is not None:
                epoch.close()
        self._epoch = self._following = None


def _view(seed: int, spec: EpochSpec) -> View:
    if spec.centre_crop is not None:
        return CentreView(spec.resolution, crop_ratio=spec.centre_crop)
    return TrainView(seed, spec.epoch, spec.resolution, crop_scale=spec.crop_scale, crop_ratio=spec.crop_ratio)


class _OpenEpoch:
    """An epoch being decoded, and where it stands."""

    def __init__(self, position: Position, order_hash: str, iterator: BatchStream, transfer: Transfer):
        self.position = position
        self.order_hash = order_hash
        self.iterator = iterator
        self.batches = transfer.batches(iterator)
        self.peeked: DeviceBatch | None = None

    def close(self) -> None:
        self.batches.close()  # it may still be copying what the iterator will hand on
        self.iterator.close()

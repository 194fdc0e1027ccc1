"""Resolution and learning rate as pure functions of a place in the run. Epochs count from 0 and may be fractional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from launcher.config import (
    Augmentation,
    Constant,
    Cosine,
    CropAtSize,
    Exponential,
    Growing,
    LearningRate,
    Phase,
    PiecewiseLinear,
    Polynomial,
    Ramp,
    RandAugment,
    Shape,
    Step,
)


def resolution_at(resolution: int | Ramp, epoch_in_phase: int, phase_epochs: int) -> int:
    """Size in pixels of a phase's epoch.

    A ramp runs from `start` at the phase's first epoch, or where `between_epochs` begins, to `end` at the first epoch
    after it, or where that ends; rounded half to even to `multiple_of`: the rule of ffcv-imagenet's `get_resolution`.
    """
    if isinstance(resolution, int):
        return resolution
    begin, end = resolution.between_epochs or (0, phase_epochs)
    epoch = min(max(epoch_in_phase, begin), end)
    exact = resolution.start + (resolution.end - resolution.start) * (epoch - begin) / (end - begin)
    return round(exact / resolution.multiple_of) * resolution.multiple_of


def crop_scale_at(crop_scale: tuple[float, float] | CropAtSize, resolution: int) -> tuple[float, float]:
    """Least and greatest share of the area in a crop at a training size."""
    if isinstance(crop_scale, tuple):
        return crop_scale
    area = (resolution / crop_scale.at) ** 2
    low, high = crop_scale.scale
    return min(1.0, low * area), min(1.0, high * area)


@dataclass(frozen=True)
class Strengths:
    """How strong augmentation and regularisation are in an epoch."""

    policy: Literal["rand_augment", "trivial_augment"] | None = None
    magnitude: float | None = None
    """Of RandAugment's operations, in the job's own scale."""
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    dropout: float | None = None
    """The model's highest rate; None: as it was built."""
    stochastic_depth: float | None = None


def strengths_by_phase(augmentation: Augmentation, phases: Sequence[Phase]) -> list[Strengths]:
    """For each phase: from start to end by equal steps (Tan and Le 2021, Algorithm 1).

    Phases on centre crops, as evaluations judge them, go without, and do not count.
    """
    augmented = [index for index, phase in enumerate(phases) if phase.centre_crop is None]
    steps = max(1, len(augmented) - 1)
    shares = {index: place / steps if len(augmented) > 1 else 1.0 for place, index in enumerate(augmented)}
    return [_strengths(augmentation, shares[i]) if i in shares else Strengths() for i in range(len(phases))]


def _strengths(augmentation: Augmentation, share: float) -> Strengths:

    def at(strength: float | Growing) -> float:
        if not isinstance(strength, Growing):
            return strength
        return strength.start + (strength.end - strength.start) * share

    policy = augmentation.policy
    return Strengths(
        policy=policy.kind if policy else None,
        magnitude=at(policy.magnitude) if isinstance(policy, RandAugment) else None,
        erasing_probability=at(augmentation.random_erasing),
        mixup_alpha=at(augmentation.mixup),
        cutmix_alpha=at(augmentation.cutmix),
        dropout=None if augmentation.dropout is None else at(augmentation.dropout),
        stochastic_depth=None if augmentation.stochastic_depth is None else at(augmentation.stochastic_depth),
    )


def shape_factor(shape: Shape, epoch: float, num_epochs: int, *, arriving: bool = False) -> float:
    """The LR's factor at `epoch` of `num_epochs`; where it jumps, what it was before if `arriving`."""
    match shape:
        case Constant():
            return 1.0
        case PiecewiseLinear():
            return _interpolate(shape.points, epoch, arriving=arriving)
        case Step():
            passed = sum(_passed(milestone, epoch, arriving=arriving) for milestone in shape.milestones_epochs)
            return float(shape.factor**passed)
        case Cosine():
            share = _share_of_decay(shape.begin_epoch, epoch, num_epochs)
            return shape.final_factor + (1 - shape.final_factor) * (1 + math.cos(math.pi * share)) / 2
        case Polynomial():
            left = 1 - _share_of_decay(shape.begin_epoch, epoch, num_epochs)
            return float(shape.final_factor + (1 - shape.final_factor) * left**shape.power)
        case Exponential():
            if not _passed(shape.hold_epochs, epoch, arriving=arriving):
                return 1.0
            times = round(epoch / shape.every_epochs, 9)  # 36 / 2.4 is a little more than 15
            if shape.stairs:
                times = math.ceil(times) - 1 if arriving and times else math.floor(times)
            return float(shape.factor**times)


def _passed(milestone: float, epoch: float, *, arriving: bool) -> bool:
    return epoch > milestone if arriving else epoch >= milestone


def _share_of_decay(begin_epoch: float, epoch: float, num_epochs: int) -> float:
    """How much of the way from `begin_epoch` to the end lies behind, 0..1."""
    if epoch <= begin_epoch:
        return 0.0
    return min((epoch - begin_epoch) / (num_epochs - begin_epoch), 1.0) if begin_epoch < num_epochs else 1.0


def warmup_factor(phase: Phase, epoch_in_phase: float, *, batch_factor: float) -> float:
    """Linear climb from `warmup_start_factor` to 1 over the phase's first `warmup_epochs`.

    `base` starts it at the LR of the base batch, or at the phase's own LR if that is lower.
    """
    if epoch_in_phase >= phase.warmup_epochs:
        return 1.0
    start = min(1.0, 1 / batch_factor) if phase.warmup_start_factor == "base" else phase.warmup_start_factor
    return start + (1 - start) * (epoch_in_phase / phase.warmup_epochs)


def batch_factor(rule: LearningRate, global_batch: int) -> float:
    """How the LR follows the batch; linear: k times the batch, k times the LR (Goyal et al. 2017, section 2.1)."""
    times = global_batch / rule.base_batch
    match rule.scaling:
        case "linear":
            return times
        case "sqrt":
            return math.sqrt(times)
        case "none":
            return 1.0


def size_increases(phases: Sequence[Phase]) -> tuple[int, ...]:
    """For each epoch of a run, how often the training size has increased up to it."""
    sizes = [resolution_at(phase.resolution, epoch, phase.epochs) for phase in phases for epoch in range(phase.epochs)]
    return tuple(accumulate((later > earlier for earlier, later in pairwise(sizes)), initial=0))


def learning_rate_at(
    rule: LearningRate,
    phase: Phase,
    *,
    epoch: float,
    phase_start: int,
    num_epochs: int,
    global_batch: int,
    size_increases: int = 0,
    arriving: bool = False,
) -> float:
    """The learning rate at `epoch`, which lies in `phase`, whose first epoch is `phase_start`.

    Where it jumps at `epoch`: what it was before if `arriving`.
    """
    batch = batch_factor(rule, global_batch)
    in_phase = epoch - phase_start
    at, length = (in_phase, phase.epochs) if rule.restart == "per_phase" else (epoch, num_epochs)
    return (
        rule.base
        * batch
        * shape_factor(rule.shape, at, length, arriving=arriving)
        * phase.lr_scale
        * warmup_factor(phase, in_phase, batch_factor=batch)
        * rule.at_size_increase**size_increases
    )


def _interpolate(points: Sequence[tuple[float, float]], x: float, *, arriving: bool) -> float:
    if x < points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < x1 and (x <= x1 if arriving else x < x1):
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]

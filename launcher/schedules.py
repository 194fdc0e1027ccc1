"""Resolution and learning rate as pure functions of a place in the run. Epochs count from 0 and may be fractional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from launcher.config import Constant, Cosine, LearningRate, Phase, PiecewiseLinear, Ramp, Shape, Step


def resolution_at(resolution: int | Ramp, epoch_in_phase: int, phase_epochs: int) -> int:
    """Size in pixels of a phase's epoch.

    A ramp runs from `start` at the phase's first epoch to `end` at the first epoch after it, rounded half to even to
    `multiple_of`: the rule of ffcv-imagenet's `get_resolution` (train_imagenet.py), where a phase is its ramp.
    """
    if isinstance(resolution, int):
        return resolution
    exact = resolution.start + (resolution.end - resolution.start) * epoch_in_phase / phase_epochs
    return round(exact / resolution.multiple_of) * resolution.multiple_of


def shape_factor(shape: Shape, epoch: float, num_epochs: int) -> float:
    """The LR's factor at `epoch` of a run of `num_epochs`."""
    match shape:
        case Constant():
            return 1.0
        case PiecewiseLinear():
            return _interpolate(shape.points, epoch)
        case Step():
            return float(shape.factor ** sum(epoch >= milestone for milestone in shape.milestones_epochs))
        case Cosine():
            share = min(epoch / num_epochs, 1.0)
            return shape.final_factor + (1 - shape.final_factor) * (1 + math.cos(math.pi * share)) / 2


def warmup_factor(phase: Phase, epoch_in_phase: float) -> float:
    """Linear climb from `warmup_start_factor` to 1 over the phase's first `warmup_epochs`."""
    if epoch_in_phase >= phase.warmup_epochs:
        return 1.0
    climbed = epoch_in_phase / phase.warmup_epochs
    return phase.warmup_start_factor + (1 - phase.warmup_start_factor) * climbed


def batch_factor(rule: LearningRate, global_batch: int) -> float:
    """Linear scaling (Goyal et al. 2017, section 2.1): k times the batch, k times the LR."""
    return global_batch / rule.base_batch if rule.scaling == "linear" else 1.0


def learning_rate_at(
    rule: LearningRate, phase: Phase, *, epoch: float, phase_start: int, num_epochs: int, global_batch: int
) -> float:
    """The learning rate at `epoch`, which lies in `phase`, whose first epoch is `phase_start`."""
    return (
        rule.base
        * batch_factor(rule, global_batch)
        * shape_factor(rule.shape, epoch, num_epochs)
        * phase.lr_scale
        * warmup_factor(phase, epoch - phase_start)
    )


def _interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]

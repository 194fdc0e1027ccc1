"""The learning rate: its height, how it follows the batch, and its course."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from launcher.config.values import Count, Fraction, NonNegative, Number, Point, Positive, Section, broken_rule


class Constant(Section):
    kind: Literal["constant"] = "constant"


class PiecewiseLinear(Section):
    """Straight lines between points; ffcv-imagenet's cyclic schedule is [[0, 1e-4], [2, 1], [16, 0]]."""

    kind: Literal["piecewise_linear"]
    points: Annotated[tuple[Point, ...], Field(strict=False, min_length=2)]
    """[epoch, factor] pairs in order; held constant before the first and after the last. Two points at one epoch are a
    jump from the first to the second."""

    @field_validator("points")
    @classmethod
    def _epochs_in_order(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        epochs = [epoch for epoch, _ in points]
        for earlier, later in pairwise(epochs):
            if later < earlier:
                rule = f"epochs must not fall, but {later:g} follows {earlier:g}"
                raise broken_rule(rule, fix="put the points in order")
        for epoch in epochs:
            if epochs.count(epoch) > 2:
                raise broken_rule(f"epoch {epoch:g} stands {epochs.count(epoch)} times", fix="keep two points at most")
        return points


class Step(Section):
    kind: Literal["step"]
    milestones_epochs: Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=1)]
    """Epochs at which the LR is multiplied by `factor`."""
    factor: Fraction = 0.1


class _Decay(Section):
    """From 1 at `begin_epoch`, held until then, down to `final_factor` at the end."""

    final_factor: Annotated[Number, Field(ge=0, le=1)] = 0.0
    begin_epoch: NonNegative = 0.0
    """0, or a warm-up's length, as torchvision's recipes have it."""


class Cosine(_Decay):
    """Half a cosine (Loshchilov and Hutter 2017), from 1 down to `final_factor`."""

    kind: Literal["cosine"]


class Polynomial(_Decay):
    """A power of what is left, from 1 down to `final_factor`; 1 is a straight line, 2 a parabola."""

    kind: Literal["polynomial"]
    power: Positive = 1.0


class Exponential(Section):
    """Times `factor` for every `every_epochs`; EfficientNet's is 0.97 for every 2.4, by stairs, held for 5."""

    kind: Literal["exponential"]
    factor: Fraction
    every_epochs: Positive = 1.0
    stairs: bool = False
    """Fall at the end of each such stretch, instead of all along."""
    hold_epochs: NonNegative = 0.0
    """Stay at 1 for so long, then be where one would be without the hold."""


Shape = Annotated[Constant | PiecewiseLinear | Step | Cosine | Polynomial | Exponential, Field(discriminator="kind")]


class LearningRate(Section):
    base: Positive
    """The learning rate at a global batch of `base_batch`."""
    base_batch: Count = 256
    """The global batch that `base` was chosen for, and from which `scaling` goes."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the LR follows the global batch: as the batch itself (Goyal et al. 2017), as its root, or not."""
    shape: Shape = Constant()
    """The LR's course over the run, as a factor."""
    restart: Literal["never", "per_phase"] = "never"
    """per_phase: the shape runs through every phase anew, and its epochs count from the phase's first."""
    at_size_increase: Fraction = 1.0
    """Factor on the LR at every increase of the training size, within ramps, too."""

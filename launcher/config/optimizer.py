"""What is minimised, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from launcher.config.values import BelowOne, Fraction, NonNegative, Positive, Section, broken_rule


class Loss(Section):
    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """bce: a binary cross entropy per class, summed; the classifier starts at the classes' prior probability, as
    Composer's recipes do."""
    label_smoothing: BelowOne = 0.0


class _Optimizer(Section):
    """What every optimizer has."""

    weight_decay: NonNegative = 0.0
    norm_weight_decay: NonNegative | None = None
    """Weight decay of norm layers and biases; `weight_decay` when absent, 0 in most ImageNet recipes."""
    layer_decay: Fraction = 1.0
    """Factor on the LR from each layer to the one before it: the classifier learns fastest, for fine-tuning."""
    clip_norm: Positive | None = None
    """Scale the gradient down to at most this norm, over all weights."""


class Sgd(_Optimizer):
    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise broken_rule("needs a momentum above 0", fix="set momentum, or nesterov: false")
        return nesterov


Betas = Annotated[tuple[BelowOne, BelowOne], Field(strict=False)]


class AdamW(_Optimizer):
    name: Literal["adamw"]
    betas: Betas = (0.9, 0.999)
    epsilon: Positive = 1e-8


class RmsProp(_Optimizer):
    """torch's, which adds epsilon after the root: torchvision's recipes take 0.0316 for EfficientNet's 0.001."""

    name: Literal["rmsprop"]
    smoothing: BelowOne = 0.99
    """What stays of the squared gradients' average at each step; 0.9 for EfficientNet."""
    momentum: BelowOne = 0.0
    epsilon: Positive = 1e-8


class Lamb(_Optimizer):
    """timm's (You et al. 2020, arXiv:1904.00962), without its own clipping: see clip_norm."""

    name: Literal["lamb"]
    betas: Betas = (0.9, 0.999)
    epsilon: Positive = 1e-6


class Lars(_Optimizer):
    """timm's (You et al. 2017, arXiv:1708.03888)."""

    name: Literal["lars"]
    momentum: BelowOne = 0.9
    nesterov: bool = False
    trust_coefficient: Positive = 0.001


Optimizer = Annotated[Sgd | AdamW | RmsProp | Lamb | Lars, Field(discriminator="name")]

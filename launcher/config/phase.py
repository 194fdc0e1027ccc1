"""A phase of training at one size or along a ramp: its batch, warm-up and crops, and what learns in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from launcher.config.norm import Norm
from launcher.config.values import (
    Count,
    Fraction,
    NonNegative,
    Number,
    Pixels,
    Positive,
    Section,
    broken_rule,
    in_order,
)


class Ramp(Section):
    """A size that grows over a phase's epochs: `start` at its first, `end` at the first epoch after it.

    This is ffcv-imagenet's rule.
    """

    multiple_of: Count
    """Sizes are rounded to this step, half to even."""
    start: Pixels
    end: Pixels
    between_epochs: Annotated[tuple[NonNegative, NonNegative], Field(strict=False)] | None = None
    """Grow between these epochs of the phase alone, fractions allowed: `start` before them, `end` after."""

    @field_validator("start", "end")
    @classmethod
    def _on_the_step(cls, size: int, info: ValidationInfo) -> int:
        step = info.data.get("multiple_of", 1)
        if size % step:
            raise broken_rule(f"is not a multiple of {step}", fix=f"use {max(1, round(size / step)) * step}")
        return size

    @field_validator("between_epochs")
    @classmethod
    def _in_order(cls, between: tuple[float, float] | None) -> tuple[float, float] | None:
        if between is not None and between[0] >= between[1]:
            raise broken_rule("does not run forwards", fix=f"use [{between[1]:g}, {between[0]:g}]")
        return between


def _resolution_tag(value: Any) -> str:
    return "ramp" if isinstance(value, (dict, Ramp)) else "size"


Resolution = Annotated[Annotated[Pixels, Tag("size")] | Annotated[Ramp, Tag("ramp")], Discriminator(_resolution_tag)]


def _batch_tag(value: Any) -> str:
    return "auto" if isinstance(value, str) else "number"


BatchPerWorker = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["auto"], Tag("auto")], Discriminator(_batch_tag)
]


def _trainable_tag(value: Any) -> str:
    return "blocks" if isinstance(value, int) else "parts"


TrainableParts = Literal["all", "classifier", "classifier_and_last_norm"]
Trainable = Annotated[
    Annotated[TrainableParts, Tag("parts")] | Annotated[Count, Tag("blocks")], Discriminator(_trainable_tag)
]


CropRange = Annotated[tuple[Fraction, Fraction], Field(strict=False), AfterValidator(in_order)]


class CropAtSize(Section):
    """Crops that keep objects at one size in pixels: at half of `at` px they show a quarter of the area.

    Random crops enlarge objects (Touvron et al. 2019, section 3); this keeps by how much, whatever the phase's size.
    """

    scale: CropRange
    """Least and greatest share of the image's area at `at` px; at other sizes in proportion to the area, at most 1."""
    at: Pixels


def _crop_tag(value: Any) -> str:
    return "rule" if isinstance(value, (dict, CropAtSize)) else "range"


def _warmup_tag(value: Any) -> str:
    return "base" if value == "base" else "factor"


WarmupStart = Annotated[
    Annotated[Annotated[Number, Field(ge=0, le=1)], Tag("factor")] | Annotated[Literal["base"], Tag("base")],
    Discriminator(_warmup_tag),
]


CropScale = Annotated[Annotated[CropRange, Tag("range")] | Annotated[CropAtSize, Tag("rule")], Discriminator(_crop_tag)]
CropRatio = Annotated[tuple[Positive, Positive], Field(strict=False), AfterValidator(in_order)]


def need_a_batch(global_batch: int | None, info: ValidationInfo) -> int | None:
    """The rule of a section that has batch_per_worker, too: one of the two is given."""
    if "batch_per_worker" in info.data and info.data["batch_per_worker"] is None and global_batch is None:
        raise broken_rule(
            "batch_per_worker or global_batch is needed",
            fix="add one of them",
            alternatives=("batch_per_worker", "global_batch"),
        )
    return global_batch


class Phase(Section):
    name: str | None = None
    epochs: Count
    resolution: Resolution
    """Training size in pixels, or a ramp `{start, end, multiple_of}` over the phase's epochs."""
    batch_per_worker: BatchPerWorker | None = None
    """Samples that a worker takes at once. Alone, it stays whatever the number of workers, and the LR follows. auto: as
    many as its memory holds in training at this phase's size; see `resolute batch-size`."""
    global_batch: Annotated[Count | None, Field(validate_default=True)] = None
    """Samples per step over all workers, kept whatever their number. With `batch_per_worker` beside it, workers take no
    more than that at once and accumulate gradients up to this."""
    lr_scale: Positive = 1.0
    """Factor on the learning rate for the whole phase."""
    warmup_epochs: NonNegative = 0.0
    """Epochs (fractions allowed) over which the LR climbs to the phase's value."""
    warmup_start_factor: WarmupStart = 0.1
    """Share of the phase's LR at which its warm-up starts; base: at the LR of a batch of base_batch, as in Goyal et
    al. 2017, section 2.2."""
    crop_scale: CropScale = (0.08, 1.0)
    """Least and greatest share of the image's area in a training crop, or `{scale, at}` to keep the size of objects."""
    crop_ratio: CropRatio = (3 / 4, 4 / 3)
    """Narrowest and widest training crop, width / height."""
    centre_crop: Fraction | None = None
    """Train on the centre crop of this share of the shorter side, as evaluations judge it, instead of random crops."""
    trainable: Trainable = "all"
    """What learns: all, classifier, classifier_and_last_norm, or a number: the classifier and so many of the last
    blocks. All else is frozen, and computes as in evaluation, but for dropout right before a classifier.

    classifier_and_last_norm is FixRes (Touvron et al. 2019, arXiv:1906.06423): dropout is off, too, and the last norm's
    statistics follow its images. Its gain and bias learn here as well; the authors' code leaves these two as they are.
    """
    norm: Norm | None = None
    """What becomes of batch norms' statistics where this phase changes size or crop; the job's `norm` when absent.
    Recalibration waits until all learns: frozen norms stay as they are, and others follow their images."""

    @field_validator("global_batch")
    @classmethod
    def _some_batch(cls, global_batch: int | None, info: ValidationInfo) -> int | None:
        return need_a_batch(global_batch, info)

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup_epochs: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs")
        if epochs is not None and warmup_epochs > epochs:
            raise broken_rule(f"is longer than the phase's epochs: {epochs}", fix=f"use at most {epochs}")
        return warmup_epochs

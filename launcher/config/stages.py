"""Phases as a list, or as stages of growing size that are laid out as one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from launcher.config.phase import BatchPerWorker, CropRatio, CropScale, Phase, WarmupStart, need_a_batch
from launcher.config.values import Count, NonNegative, Pixels, Section, broken_rule


class Stages(Section):
    """Phases of equal length whose size grows by equal steps, as EfficientNetV2's code lays them out: written
    `{from: 128, to: 300, stages: 4, epochs: 350}`, these are 171, 214, 257 and 300 px.
    """

    start: Annotated[Pixels, Field(alias="from")]
    """The size before the first step: the first stage is already one step larger."""
    to: Pixels
    stages: Count
    epochs: Count
    """Of all stages together; where they do not divide, an epoch belongs to the stage in which it begins."""
    batch_per_worker: BatchPerWorker | None = None
    global_batch: Annotated[Count | None, Field(validate_default=True)] = None
    warmup_epochs: NonNegative = 0.0
    """Of the first stage."""
    warmup_start_factor: WarmupStart = 0.1
    crop_scale: CropScale = (0.08, 1.0)
    crop_ratio: CropRatio = (3 / 4, 4 / 3)

    @field_validator("epochs")
    @classmethod
    def _one_for_each(cls, epochs: int, info: ValidationInfo) -> int:
        stages = info.data.get("stages", 1)
        if epochs < stages:
            raise broken_rule(f"is less than one for each of {stages} stages", fix="use more, or fewer stages")
        return epochs

    @field_validator("global_batch")
    @classmethod
    def _some_batch(cls, global_batch: int | None, info: ValidationInfo) -> int | None:
        return need_a_batch(global_batch, info)

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup_epochs: float, info: ValidationInfo) -> float:
        if {"stages", "epochs"} <= info.data.keys():
            first = math.ceil(info.data["epochs"] / info.data["stages"])
            if warmup_epochs > first:
                raise broken_rule(f"is longer than the first stage's epochs: {first}", fix=f"use at most {first}")
        return warmup_epochs

    def phases(self) -> tuple[Phase, ...]:
        """One for each stage."""
        common = self.model_dump(include={"batch_per_worker", "global_batch", "crop_ratio"})
        first = self.model_dump(include={"warmup_epochs", "warmup_start_factor"})
        ends = [math.ceil(self.epochs * stage / self.stages) for stage in range(self.stages + 1)]
        sizes = [self.start + (self.to - self.start) * stage // self.stages for stage in range(1, self.stages + 1)]
        return tuple(
            Phase(epochs=end - begin, resolution=size, crop_scale=self.crop_scale, **common, **({} if begin else first))
            for (begin, end), size in zip(pairwise(ends), sizes, strict=True)
        )


def _phases_tag(value: Any) -> str:
    return "growing" if isinstance(value, (dict, Stages)) else "list"


def _expanded(phases: tuple[Phase, ...] | Stages) -> tuple[Phase, ...]:
    return phases.phases() if isinstance(phases, Stages) else phases


if TYPE_CHECKING:
    Phases = tuple[Phase, ...]
else:
    Phases = Annotated[
        Annotated[tuple[Phase, ...], Field(strict=False, min_length=1), Tag("list")]
        | Annotated[Stages, Tag("growing")],
        Discriminator(_phases_tag),
        AfterValidator(_expanded),
    ]

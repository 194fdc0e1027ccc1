"""How a run goes about it: workers, evaluations, checkpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, ValidationInfo, field_validator

from launcher.config.values import Count, Fraction, Pixels, Positive, Section, broken_rule


class Evaluation(Section):
    resolution: Pixels | None = None
    """Size at which to evaluate; the phase's training size when absent."""
    crop_ratio: Fraction = 224 / 256
    """Side of the centre crop as a share of the image's shorter side."""
    flip_tta: bool = False
    """Average the logits of each image and its mirror image."""
    batch_per_worker: Count = 256
    every_epochs: Count = 1
    """Evaluate after every so many epochs; always at a phase's end."""


class Workers(Section):
    """As many workers as there are, within bounds: a run goes on when nodes are lost, and grows when they are back."""

    min: Count = 1
    max: Count

    @field_validator("max")
    @classmethod
    def _in_order(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("min", 1)
        if most < least:
            raise broken_rule(f"is below min: {least}", fix=f"use {least} or more")
        return most


def _workers_tag(value: Any) -> str:
    return "range" if isinstance(value, (dict, Workers)) else "number"


class Run(Section):
    mode: Literal["single", "ray"] = "single"
    """single: one process; ray: one Ray Train worker per GPU, or CPU workers."""
    workers: Annotated[
        Annotated[Count, Tag("number")] | Annotated[Workers, Tag("range")], Discriminator(_workers_tag)
    ] = 1
    """A number, or `{min, max}` for a run that goes on with what there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the GPU has it, else fp16; fp32 on CPU."""
    threads_per_worker: Count | None = None
    """Threads for torch's CPU kernels; the machine's cores divided by the workers when absent."""
    lease_s: Positive = 2.0
    """How far ahead workers may train without asking; a stop takes effect within it."""
    grace_s: Positive | None = None
    """Seconds between the signal to stop and the kill, if known: leases become so short that a save still fits."""
    transition_timeout_s: Positive = 300.0
    """How long ranks wait for each other's acknowledgement at a transition."""
    stall_timeout_s: Positive = 300.0
    """How long a worker may show no progress before it is ended and the run goes on from the last checkpoint."""
    attempts_without_progress: Count = 3
    """After so many attempts in a row that saved nothing new, the run gives up."""

    @property
    def most_workers(self) -> int:
        return self.workers.max if isinstance(self.workers, Workers) else self.workers

    @property
    def least_workers(self) -> int:
        return self.workers.min if isinstance(self.workers, Workers) else self.workers


class Checkpoint(Section):
    every_epochs: Count = 1
    """Save after every so many epochs; always at a phase's end and on a stop."""
    every_minutes: Positive | None = 15.0
    """Save as often within epochs, too; null: not."""
    keep_last: Count = 2
    """Newest checkpoints to keep besides those of the phase boundaries."""
    keep_best: bool = True
    """Keep the checkpoint with the highest top-1 accuracy, too."""

"""What becomes of batch norms' running statistics where images change in size or crop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launcher.config.values import Count, Section


class RecalibrateNorm(Section):
    """Estimate running mean and variance anew from training samples at the new size (Wu and Johnson 2021)."""

    kind: Literal["recalibrate"]
    num_batches: Count | None = None
    """Global batches to estimate from, or as many as the epoch has; unset, as many as hold 10,000 samples.

    Statistics of 1,000 to 10,000 samples are good ones, say the authors.
    """


class FreezeNorm(Section):
    """Normalise by the statistics of the size before for a while, as in evaluation; their scale and shift train on.

    For small learning rates, as in fine-tuning: nothing bounds activations meanwhile. At the rates of training from
    scratch two of three seeds of `cifar10-cpu` diverged (docs/race.md).
    """

    kind: Literal["freeze"]
    epochs: Count = 1


class KeepNorm(Section):
    """Let the statistics follow by their own momentum."""

    kind: Literal["none"] = "none"


Norm = Annotated[RecalibrateNorm | FreezeNorm | KeepNorm, Field(discriminator="kind")]

"""Where images come from, and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from launcher.config.values import Count, NodeDirectory, Positive, Rgb, Section, broken_rule


class Data(Section):
    train: str | None = None
    """Path of the training `.beton`; needed to run, not to plan if `num_samples` is given."""
    val: str | None = None
    """Path of the validation `.beton`; without it the run does not evaluate."""
    stage: NodeDirectory | None = None
    """A directory on each node's own disk, such as `$SLURM_TMPDIR`: both files are copied there before training, once a
    node, and read there. Variables are those of the node when a worker starts."""
    stage_timeout_s: Positive = 1800.0
    """After so long without a whole copy a worker reads the files from where they lie."""
    num_samples: Count | None = None
    """Training samples, for planning where the data is not; a run checks it against the file."""
    num_classes: Count | None = None
    """Number of classes; read from the data set's card when absent."""
    channel_mean: Rgb | None = None
    """Mean per channel, 0..255; the card's when absent."""
    channel_std: Rgb | None = None
    """Standard deviation per channel, 0..255; the card's when absent."""
    decode_threads_per_worker: Count = 1
    """Threads that decode images, per worker."""
    batches_ahead: Count = 3
    """Batches decoded ahead of training, per worker."""
    shuffle_window_samples: Annotated[int, Field(ge=2)] | None = None
    """Shuffle within stretches of so many neighbours, for a file larger than memory; the whole file when absent."""
    skip_corrupt: bool = False
    """Let another sample, drawn by seed, epoch and sample, stand in for one that is damaged; else that ends the run."""
    loader: Literal["resolute", "ffcv"] = "resolute"
    """ffcv: FFCV's own loader and decoder, to compare with; its crops cannot be repeated, and it sees no damage."""

    @field_validator("loader")
    @classmethod
    def _sees_damage(cls, loader: str, info: ValidationInfo) -> str:
        if loader == "ffcv" and info.data.get("skip_corrupt"):
            raise broken_rule("FFCV's loader does not notice damage", fix="use resolute, or skip_corrupt: false")
        return loader

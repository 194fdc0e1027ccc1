"""The network: which one, where its weights start from, and their moving average."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from launcher.config.values import Count, Json, Number, Section, broken_rule


class Model(Section):
    name: str
    """`small_resnet`; a name of torchvision.models.list_models(), such as resnet50; or timm/NAME, where timm is
    installed. A vision transformer's position embedding is resampled to each size."""
    options: dict[str, Json] = Field(default_factory=dict)
    """Keyword arguments for the model's constructor."""
    blurpool: bool = False
    """Blur before every strided convolution of at least 16 channels (Zhang 2019), as ffcv-imagenet does."""
    zero_init_residual: bool = False
    """Start each residual block as the identity, with a gain of 0 in its last norm (Goyal et al. 2017, section 5.1)."""
    pretrained: str | None = None
    """Start from published weights: a name of the model's in torchvision, such as IMAGENET1K_V2, a tag of timm's, or
    DEFAULT. A classifier for other classes is replaced."""
    weights: str | None = None
    """Start from this file: safetensors, such as a run's model.safetensors, or a PyTorch state dict."""

    @field_validator("weights")
    @classmethod
    def _one_start(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is not None and info.data.get("pretrained") is not None:
            raise broken_rule("model.pretrained is given, too", fix="delete one of them")
        return weights


class Ema(Section):
    """An exponential moving average of weights and buffers, evaluated and exported in place of the last ones.

    torch.optim.swa_utils computes it.
    """

    decay: Annotated[Number, Field(gt=0, lt=1)]
    """What stays of the average at each update; 0.9999 averages about the last 10,000 updates."""
    every_steps: Count = 1
    """Update after every so many steps, counted from each epoch's start."""

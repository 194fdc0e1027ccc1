"""timm's models, an optional package: `timm/NAME` in a job."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

PREFIX = "timm/"


def known_names() -> list[str] | None:
    """`timm/NAME` for each of timm's models; None where timm is not installed."""
    timm = _timm()
    return None if timm is None else [PREFIX + name for name in timm.list_models()]


def build(name: str, *, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A model by its `timm/NAME`. One with a position embedding that timm can resample takes any size."""
    timm = _timm()
    assert timm is not None
    bare = name.removeprefix(PREFIX)
    model: nn.Module = timm.create_model(bare, num_classes=num_classes, **options)
    if getattr(model, "dynamic_img_size", True) or "dynamic_img_size" in options:
        return model
    resampling: nn.Module = timm.create_model(bare, num_classes=num_classes, **{"dynamic_img_size": True, **options})
    return resampling


def published_weights(name: str, choice: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict that timm publishes for a model under the tag `choice`, or DEFAULT; fetched if not cached.

    Raises ValueError naming the tags if there is none such, or whatever the fetching fails with.
    """
    timm = _timm()
    assert timm is not None
    bare = name.removeprefix(PREFIX)
    tags = [published.partition(".")[2] for published in timm.list_pretrained(f"{bare}.*")]
    if choice != "DEFAULT" and choice not in tags:
        raise ValueError(f"timm publishes {', '.join(tags) or 'no weights'} for {bare}")
    tag = "" if choice == "DEFAULT" else f".{choice}"
    model: nn.Module = timm.create_model(f"{bare}{tag}", pretrained=True, **options)
    return model.state_dict()


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError:
        return None

"""What a model costs that is deeper or wider, beside one that sees larger images (Tan and Le 2019, section 3)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torchvision
from torch import nn

from launcher.config import Model
from launcher.models.build import ModelError, on_meta
from launcher.models.cost import measure_flops

_STEP_PX = 8


@dataclass(frozen=True)
class Relative:
    """A model of the same family, at one size."""

    name: str
    layers: int
    """Convolutions and linear layers."""
    mean_channels: float
    """Outputs of such a layer, on average."""
    flops: float
    """Of one image's forward pass."""
    times: float
    """As many as the job's model has."""
    same_cost_px: int
    """Images of this size cost the job's model as much, in steps of 8 px and by the area."""


def compare_scaling(config: Model, *, num_classes: int, resolution: int) -> list[Relative]:
    """The job's model and its family at `resolution`, the cheapest first; counted on the meta device.

    Raises ModelError if the model has no family here.
    """
    family = _family(config)
    flops = [measure_flops(one, num_classes=num_classes, resolutions=[resolution])[resolution] for one in family]
    own = flops[family.index(config)]
    relatives = [
        _relative(one, num_classes=num_classes, flops=count, times=count / own, resolution=resolution)
        for one, count in zip(family, flops, strict=True)
    ]
    return sorted(relatives, key=lambda relative: relative.flops)


def _family(config: Model) -> list[Model]:
    """For torchvision's, all whose names differ in numbers and `wide_`; for small_resnet, twice its depth and width."""
    if config.name == "small_resnet":
        options = {"width": 16, "blocks_per_stage": 3, **config.options}
        doubled = [{**options, key: 2 * options[key]} for key in ("blocks_per_stage", "width")]
        return [config, *(config.model_copy(update={"options": grown}) for grown in doubled)]
    names = torchvision.models.list_models(module=torchvision.models)
    alike = [name for name in names if _stem(name) == _stem(config.name)]
    if config.name not in alike or len(alike) == 1:
        raise ModelError(f"model.name: {config.name} has no smaller or larger relatives to compare with")
    return [config.model_copy(update={"name": name}) for name in alike]


def _stem(name: str) -> str:
    """resnet50, wide_resnet50_2 -> resnet; efficientnet_b0 -> efficientnet_b; efficientnet_v2_s -> efficientnet_v2_."""
    sized = re.sub(r"(?<=_)[smltx]$", "", name.removeprefix("wide_"))
    return re.sub(r"\d+(_\d+)?$", "", sized)


def _relative(config: Model, *, num_classes: int, flops: float, times: float, resolution: int) -> Relative:
    modules = on_meta(config, num_classes=num_classes).modules()
    outputs = [
        module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
        for module in modules
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    name = config.name
    if name == "small_resnet":
        name = f"width {config.options.get('width', 16)}, {config.options.get('blocks_per_stage', 3)} blocks"
    same_cost_px = round(resolution * math.sqrt(times) / _STEP_PX) * _STEP_PX
    return Relative(name, len(outputs), sum(outputs) / len(outputs), flops, times, same_cost_px)

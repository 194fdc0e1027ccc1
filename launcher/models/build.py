"""Build a model by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.resnet import BasicBlock, Bottleneck

from launcher.config import Model
from launcher.models import from_timm
from launcher.models.anatomy import classifier
from launcher.models.any_size import AnySizeVisionTransformer
from launcher.models.blurpool import add_blurpool
from launcher.models.small_resnet import SmallResNet

_SMALL = "small_resnet"
_WEIGHTS_OPTIONS = {"weights", "weights_backbone", "pretrained", "checkpoint_path"}


class ModelError(ValueError):
    """The job's model cannot be built."""


def build_model(config: Model, *, num_classes: int, seed: int) -> nn.Module:
    """The job's model with weights initialised from `seed`, float32 on the current default device.

    Raises ModelError for an unknown name or options that the constructor refuses.
    """
    _require_known(config)
    torch.manual_seed(seed)
    try:
        model = _construct(config, num_classes)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        if isinstance(error, NotImplementedError):  # what the meta device lacks is not the user's mistake
            raise
        raise ModelError(f"model.options: {config.name} cannot be built with {config.options}: {error}") from error
    if isinstance(model, VisionTransformer):
        model.__class__ = AnySizeVisionTransformer  # torchvision's builders take no class
    if config.zero_init_residual:
        _zero_last_gains(model, config.name)
    if config.blurpool:
        add_blurpool(model)
    return model


def _construct(config: Model, num_classes: int) -> nn.Module:
    if config.name == _SMALL:
        return SmallResNet(num_classes, **config.options)
    if config.name.startswith(from_timm.PREFIX):
        return from_timm.build(config.name, num_classes=num_classes, options=config.options)
    model: nn.Module = torchvision.models.get_model(config.name, num_classes=num_classes, **config.options)
    return model


def _require_known(config: Model) -> None:
    known: list[str] = [_SMALL, *torchvision.models.list_models(module=torchvision.models)]
    if config.name.startswith(from_timm.PREFIX):
        timm_names = from_timm.known_names()
        if timm_names is None:
            raise ModelError(f"model.name: {config.name} needs timm; pip install 'resolute[timm]'")
        known = timm_names
    if config.name not in known:
        near = difflib.get_close_matches(config.name, known, n=3)
        raise ModelError(f"model.name: {config.name!r} is not known; {_suggestion(near, known)}")
    if weights := _WEIGHTS_OPTIONS & config.options.keys():
        raise ModelError(f"model.options.{min(weights)}: say model.pretrained or model.weights instead")


def _suggestion(near: Sequence[str], known: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(known)}"


def _zero_last_gains(model: nn.Module, name: str) -> None:
    """Zero the gain of each residual block's last norm. Raises ModelError if there are no blocks that have one."""
    gains = []
    for module in model.modules():
        if isinstance(module, Bottleneck):
            gains.append(module.bn3.weight)
        elif isinstance(module, BasicBlock):
            gains.append(module.bn2.weight)
        elif callable(zero := getattr(module, "zero_init_last", None)):  # timm's residual blocks
            zero()
            gains += [None]
    if not gains:
        raise ModelError(f"model.zero_init_residual: {name} has no residual blocks that end in a norm; delete it")
    for gain in gains:
        if gain is not None:
            nn.init.zeros_(gain)


def start_at_prior(model: nn.Module, *, num_classes: int) -> None:
    """Let a new classifier give each class its probability of 1 in `num_classes`: the place to start for BCE."""
    bias = getattr(model.get_submodule(classifier(model)), "bias", None)
    if bias is not None:
        nn.init.constant_(bias, -math.log(num_classes))


def on_meta(config: Model, *, num_classes: int) -> nn.Module:
    """The model without memory for its weights, for asking it what it would do."""
    try:
        with torch.device("meta"):
            return build_model(config, num_classes=num_classes, seed=0)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        return build_model(config, num_classes=num_classes, seed=0).to("meta")


def check_model(config: Model, *, num_classes: int, resolutions: Iterable[int]) -> None:
    """Pass images of each size through the model on the meta device: nothing is computed.

    Raises ModelError if it cannot be built, refuses a size, or does not give one logit per class in training.
    """
    model = on_meta(config, num_classes=num_classes).train()
    for resolution in resolutions:
        try:
            logits = model(torch.empty(2, 3, resolution, resolution, device="meta"))
        except Exception as error:  # a model may refuse in any way
            raise ModelError(
                f"model.name: {config.name} does not take images of {resolution} px ({error}); "
                "choose a model without a fixed or least size, or other resolutions"
            ) from error
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, num_classes):
            raise ModelError(
                f"model.name: {config.name} gives {type(logits).__name__} in training, not one logit for each of "
                f"{num_classes} classes; choose a classification model, without auxiliary outputs"
            )

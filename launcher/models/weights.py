"""Weights to start from: published ones by name, or a file's; with another classifier where the classes differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from launcher.config import Model
from launcher.models import from_timm
from launcher.models.anatomy import layers
from launcher.models.any_size import fit_positions
from launcher.models.build import ModelError, on_meta

_WRAPPINGS = ("state_dict", "model", "model_state_dict", "module")
"""Keys under which training programs keep a model's state dict."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before each name."""
_COUNTER = "num_batches_tracked"
"""Of a batch norm; older files, torchvision's first ones among them, have none, and torch does without."""
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""In torchvision's files of densenets: `norm.1.weight`, which its models call `norm1.weight`."""
_NAMED = 3


def start_from(model: nn.Module, config: Model) -> None:
    """Give `model` the weights that its job starts from, if any. A classifier of another shape stays as it is.

    Raises ModelError for weights that cannot be had or do not fit.
    """
    if config.pretrained is None and config.weights is None:
        return
    state = model.state_dict()  # rather than the tensors alone: mnasnet loads none without its version
    state.update(_fitting(model, config))
    model.load_state_dict(state)


def check_weights(config: Model, *, num_classes: int) -> None:
    """Fetch or read what the job starts from, and hold it against the model. Raises ModelError."""
    if config.pretrained is not None or config.weights is not None:
        _fitting(on_meta(config, num_classes=num_classes), config)


def _fitting(model: nn.Module, config: Model) -> dict[str, Tensor]:
    """What the job starts from, under the model's own names, without a classifier of another shape.

    Raises ModelError naming the first of the tensors that do not fit.
    """
    source, given = (
        (f"model.weights: {config.weights}", _read(Path(config.weights)))
        if config.weights is not None
        else (f"model.pretrained: {config.pretrained}", _fetch(config))
    )
    wanted = model.state_dict()
    tensors = {_name_within(wanted, name): tensor for name, tensor in given.items()}
    fit_positions(model, tensors)
    replaceable = set(layers(model)[-1])
    fresh = {name for name in replaceable & tensors.keys() if tensors[name].shape != wanted[name].shape}
    problems = [f"has no {name}" for name in wanted if name not in tensors and not name.endswith(_COUNTER)]
    problems += [f"has {name}, which the model has not" for name in tensors if name not in wanted]
    problems += [
        f"has {name} of shape {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and name not in replaceable and tensors[name].shape != tensor.shape
    ]
    if problems:
        more = f", and {len(problems) - _NAMED} mistakes more" if len(problems) > _NAMED else ""
        raise ModelError(f"{source} does not fit {config.name}: it {'; '.join(problems[:_NAMED])}{more}")
    return {name: tensor for name, tensor in tensors.items() if name not in fresh}


def _name_within(wanted: Mapping[str, Tensor], name: str) -> str:
    """A tensor's name in the model, where a wrapper had its own prefix, or the model's layers have other names."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = _DENSE_LAYER.sub(r"\1\2", name)
    path, _, leaf = name.rpartition(".")
    blurred = f"{path}.convolution.{leaf}"
    return blurred if name not in wanted and blurred in wanted else name


def _read(path: Path) -> Mapping[str, Tensor]:
    """A file's state dict; reading it runs no code. Raises ModelError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is damaged, or none of these, fails in many ways
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
        raise ModelError(
            f"model.weights: {path} cannot be read: {reason}; give a .safetensors file, or a PyTorch state dict"
        ) from error
    return _unwrapped(held, path)


def _unwrapped(held: Any, path: Path) -> Mapping[str, Tensor]:
    for key in (None, *_WRAPPINGS):
        inner = held if key is None else held.get(key) if isinstance(held, Mapping) else None
        if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return inner
    raise ModelError(f"model.weights: {path} holds no state dict; save one by torch.save(model.state_dict(), ...)")


def _fetch(config: Model) -> Mapping[str, Tensor]:
    """Published weights, from the cache or the network. Raises ModelError."""
    assert config.pretrained is not None
    name, choice = config.name, config.pretrained
    try:
        if name.startswith(from_timm.PREFIX):
            return from_timm.published_weights(name, choice, config.options)
        return _of_torchvision(name, choice)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"model.pretrained: {choice} is not known; {error}") from error
    except Exception as error:  # the network fails in the words of many libraries
        raise ModelError(
            f"model.pretrained: {choice} of {name} cannot be fetched ({type(error).__name__}: {error}); fetch it where "
            "there is a network, or give the file by model.weights"
        ) from error


def _of_torchvision(name: str, choice: str) -> Mapping[str, Tensor]:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"nobody publishes weights for {name}")
    published = torchvision.models.get_model_weights(name)
    if choice not in published.__members__:
        raise ValueError(f"{name} has {', '.join(published.__members__)}")
    state: Mapping[str, Tensor] = published[choice].get_state_dict(
        progress=False, check_hash=True, weights_only=True, map_location="cpu"
    )
    return state

"""What training remembers besides the weights, as plain named tensors and back: optimizer state and RNGs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

_GROUP = "group."
"""Before what an optimizer keeps with a group of parameters rather than with each: LAMB its step count."""
_GROUP_STATE = ("step",)
_SCALARS: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}


class TrainingStateError(ValueError):
    """Saved training state does not fit the model and optimizer at hand."""


def optimizer_tensors(model: Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: "conv1.weight/momentum_buffer" -> tensor, not copied.

    A Python number gives a tensor without dimensions whose name ends in its type: "conv1.weight/count:int". What
    belongs to a group stands with the first of its parameters: "conv1.weight/group.step". Options such as LR and
    momentum are not state: they follow from the job.

    Raises TrainingStateError for state that is neither number nor tensor, or that is not shaped after its
    parameter.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter, group in _named_parameters(model, optimizer):
        state = dict(optimizer.state.get(parameter, {}))
        if parameter is group["params"][0]:
            state |= {_GROUP + entry: group[entry] for entry in _GROUP_STATE if entry in group}
        for entry, value in state.items():
            if isinstance(value, Tensor):
                _require_fit(f"{name}/{entry}", value, parameter)
                tensors[f"{name}/{entry}"] = value.detach()
            elif type(value) in _SCALARS:
                kind = type(value)
                tensors[f"{name}/{entry}:{kind.__name__}"] = torch.tensor(value, dtype=_SCALARS[kind])
            elif value is not None:
                raise TrainingStateError(f"{name}/{entry}: a {type(value).__name__} in the optimizer cannot be saved")
    return tensors


def load_optimizer_tensors(model: Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replace the optimizer's state by a copy of `tensors`, which `optimizer_tensors` gave.

    Bits and dtypes are kept. State shaped as its parameter takes on the parameter's device and memory format.

    Raises TrainingStateError, with the optimizer unchanged.
    """
    parameters = {name: (parameter, group) for name, parameter, group in _named_parameters(model, optimizer)}
    state: dict[Tensor, dict[str, Any]] = {}
    group_state: list[tuple[dict[str, Any], str, Any]] = []
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise TrainingStateError(f"{key}: the optimizer has no parameter {name!r}; was another model trained?")
        parameter, group = parameters[name]
        _require_fit(key, tensor, parameter)
        entry, _, kind = entry.partition(":")
        value = tensor.item() if kind else _placed(entry, tensor, parameter, group)
        if entry.startswith(_GROUP):
            group_state.append((group, entry.removeprefix(_GROUP), value))
        else:
            state.setdefault(parameter, {})[entry] = value
    optimizer.state.clear()
    optimizer.state.update(state)
    for group in optimizer.param_groups:
        for entry in _GROUP_STATE:
            group.pop(entry, None)
    for group, entry, value in group_state:
        group[entry] = value


def rng_tensors() -> dict[str, Tensor]:
    """The state of this process's global generators: torch on CPU and on the GPU in use, NumPy, Python."""
    version, words, gauss = random.getstate()
    assert version == 3, version
    legacy: Any = np.random.get_state(legacy=False)
    assert legacy["bit_generator"] == "MT19937", legacy["bit_generator"]
    tensors = {
        "torch_cpu": torch.get_rng_state(),
        "python_words": torch.tensor(words, dtype=torch.int64),
        # Python keeps every second Gaussian number for the next call; none is an empty tensor.
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy_key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "numpy_position": torch.tensor(legacy["state"]["pos"], dtype=torch.int64),
        "numpy_gauss": torch.tensor([legacy["gauss"]] if legacy["has_gauss"] else [], dtype=torch.float64),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors["torch_cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set the global generators to what `rng_tensors` gave. A GPU's is left out if there is no GPU."""
    torch.set_rng_state(tensors["torch_cpu"].cpu())
    words, gauss = tensors["python_words"].tolist(), tensors["python_gauss"].tolist()
    random.setstate((3, tuple(words), gauss[0] if gauss else None))
    key = tensors["numpy_key"].cpu().numpy().astype(np.uint32)
    legacy = tensors["numpy_gauss"].tolist()
    np.random.set_state(
        ("MT19937", key, int(tensors["numpy_position"]), int(bool(legacy)), legacy[0] if legacy else 0.0)
    )
    if "torch_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["torch_cuda"].cpu())


def _named_parameters(model: Module, optimizer: Optimizer) -> Iterator[tuple[str, Parameter, dict[str, Any]]]:
    """All that the optimizer trains. Raises TrainingStateError for a parameter that is not the model's."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                shape = tuple(parameter.shape)
                raise TrainingStateError(f"the optimizer trains a parameter of shape {shape} that is not in the model")
            yield names[parameter], parameter, group


def _require_fit(key: str, tensor: Tensor, parameter: Parameter) -> None:
    """State has its parameter's shape, or broadcasts to it (Adafactor's rows and columns), or is a number."""
    sizes = zip(tensor.shape, parameter.shape, strict=False)
    if tensor.dim() and (tensor.dim() != parameter.dim() or any(own not in (1, size) for own, size in sizes)):
        raise TrainingStateError(
            f"{key}: state of shape {tuple(tensor.shape)} does not fit a parameter of shape {tuple(parameter.shape)}"
        )


def _placed(entry: str, tensor: Tensor, parameter: Parameter, group: Mapping[str, Any]) -> Tensor:
    if tensor.shape == parameter.shape and entry != "step":
        return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    # torch keeps step counts on the CPU unless a kernel reads them (Optimizer.load_state_dict does the same).
    on_cpu = tensor.dim() == 0 and not (group.get("fused") or group.get("capturable"))
    return tensor.detach().to("cpu" if on_cpu else parameter.device, copy=True)

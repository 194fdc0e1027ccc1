"""The job's optimizer, and the weight decay and learning rate of each part of the model."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from launcher import config
from launcher.models.anatomy import NORMS, layers


class OptimizerError(ValueError):
    """The job's optimizer cannot be built."""


def build_optimizer(wanted: config.Optimizer, model: nn.Module) -> TorchOptimizer:
    """The job's optimizer. Each group's LR is the plan's times the group's `lr_factor`; the trainer sets it.

    Raises OptimizerError if it needs a package that is not installed.
    """
    groups = list(_groups(wanted, model))
    match wanted:
        case config.Sgd():
            return torch.optim.SGD(groups, lr=0.0, momentum=wanted.momentum, nesterov=wanted.nesterov)
        case config.AdamW():
            return torch.optim.AdamW(groups, lr=0.0, betas=wanted.betas, eps=wanted.epsilon)
        case config.RmsProp():
            return torch.optim.RMSprop(
                groups, lr=0.0, alpha=wanted.smoothing, momentum=wanted.momentum, eps=wanted.epsilon
            )
        case config.Lamb():
            lamb: TorchOptimizer = _timm_optimizers(wanted.name).Lamb(
                groups, lr=0.0, betas=wanted.betas, eps=wanted.epsilon, max_grad_norm=None
            )
            return lamb
        case config.Lars():
            lars: TorchOptimizer = _timm_optimizers(wanted.name).Lars(
                groups,
                lr=0.0,
                momentum=wanted.momentum,
                nesterov=wanted.nesterov,
                trust_coeff=wanted.trust_coefficient,
            )
            return lars


def check_optimizer(wanted: config.Optimizer) -> None:
    """Raises OptimizerError if the optimizer needs a package that is not installed."""
    build_optimizer(wanted, nn.Linear(1, 1))


def _groups(wanted: config.Optimizer, model: nn.Module) -> Iterator[dict[str, Any]]:
    """Weights, then norms and biases; of each layer apart where they learn at different rates."""
    parameters = dict(model.named_parameters())
    exempt = _exempt_from_decay(model)
    rest_decay = wanted.weight_decay if wanted.norm_weight_decay is None else wanted.norm_weight_decay
    found = [list(parameters)] if wanted.layer_decay == 1 else layers(model)
    for depth, names in enumerate(found):
        factor = wanted.layer_decay ** (len(found) - 1 - depth)
        for decay, among in ((wanted.weight_decay, set(names) - exempt), (rest_decay, exempt.intersection(names))):
            if among:
                params = [parameters[name] for name in names if name in among]
                yield {"params": params, "weight_decay": decay, "lr_factor": factor}


def _exempt_from_decay(model: nn.Module) -> set[str]:
    """Names of the parameters that most recipes exempt: of norms, biases, and what a timm model says itself."""
    names: set[str] = set(getattr(model, "no_weight_decay", set)())
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, NORMS) or name == "bias" or parameter.ndim <= 1:
                names.add(f"{path}.{name}" if path else name)
    return names


def _timm_optimizers(name: str) -> Any:
    try:
        return importlib.import_module("timm.optim")
    except ModuleNotFoundError as error:
        raise OptimizerError(f"optimizer.name: {name} needs timm; pip install 'resolute[timm]'") from error

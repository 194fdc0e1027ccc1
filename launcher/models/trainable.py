"""What of a model learns, and how the rest computes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from torch import nn

from launcher.config import Model, Trainable
from launcher.models.anatomy import last_norm, layers
from launcher.models.build import ModelError, on_meta


def let_learn(model: nn.Module, trainable: Trainable) -> None:
    """Have only these parts take gradients. Raises ModelError if the model has not got them."""
    learning = _names(model, trainable)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)


def set_training(model: nn.Module, trainable: Trainable) -> None:
    """Put what learns into training mode, and what is frozen into evaluation mode: its norms, dropout and depth.

    For `classifier_and_last_norm` the last norm alone, as FixRes does: its network computes as it is judged.
    """
    norm = last_norm(model) if trainable == "classifier_and_last_norm" else None
    if norm is None:
        _train_what_learns(model)
    else:
        model.eval().get_submodule(norm).train()


def _train_what_learns(module: nn.Module) -> None:
    """A module without parameters goes with the one that it is part of."""
    module.training = any(parameter.requires_grad for parameter in module.parameters())
    for child in module.children():
        if next(child.parameters(), None) is None:
            child.train(module.training)
        else:
            _train_what_learns(child)


def check_trainable(config: Model, *, num_classes: int, by_phase: Iterable[Trainable]) -> None:
    """Raises ModelError naming the first phase that trains parts which the model has not got."""
    model = on_meta(config, num_classes=num_classes)
    for phase, trainable in enumerate(by_phase):
        try:
            _names(model, trainable)
        except ModelError as error:
            raise ModelError(f"phases[{phase}].trainable: {config.name} has {error}") from error


def _names(model: nn.Module, trainable: Trainable) -> set[str]:
    """Names of the parameters that learn."""
    if trainable == "all":
        return {name for name, _ in model.named_parameters()}
    by_layer = layers(model)
    if isinstance(trainable, int):
        if trainable >= len(by_layer):
            raise ModelError(f"{len(by_layer) - 1} layers before its classifier; use all, or at most so many")
        return set(chain(*by_layer[-1 - trainable :]))
    learning = set(by_layer[-1])
    if trainable == "classifier_and_last_norm":
        norm = last_norm(model)
        if norm is None:
            raise ModelError("no norms; use classifier, or a number of blocks")
        learning |= {f"{norm}.{name}" for name, _ in model.get_submodule(norm).named_parameters()}
    return learning

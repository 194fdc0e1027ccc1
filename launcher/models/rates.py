"""A model's dropout and stochastic depth, set to what the plan says."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from launcher.config import Augmentation, Model
from launcher.models.build import ModelError, on_meta


class Rates:
    """Remembers the rates that a model was built with: when the highest is set, the others keep their proportion."""

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._dropout = _Dial("p", [m for m in modules if isinstance(m, _DropoutNd)])
        # torchvision's, and timm's, which need not be installed.
        depth = [m for m in modules if isinstance(m, StochasticDepth)]
        timms = [m for m in modules if type(m).__name__ == "DropPath"]
        self._depth = _Dial("p", depth) if depth else _Dial("drop_prob", timms)

    @property
    def has_dropout(self) -> bool:
        return self._dropout.highest > 0

    @property
    def has_stochastic_depth(self) -> bool:
        return self._depth.highest > 0

    def set(self, *, dropout: float | None, stochastic_depth: float | None) -> None:
        """Set the highest rates; None: to what they were built with."""
        self._dropout.set(dropout)
        self._depth.set(stochastic_depth)


class _Dial:
    """One attribute of several modules."""

    def __init__(self, attribute: str, modules: list[nn.Module]):
        self._attribute = attribute
        self._built = [(module, float(getattr(module, attribute) or 0.0)) for module in modules]
        self.highest = max((rate for _, rate in self._built), default=0.0)

    def set(self, rate: float | None) -> None:
        if not self.highest:
            return
        factor = 1.0 if rate is None else rate / self.highest
        for module, built in self._built:
            setattr(module, self._attribute, built * factor)


def check_rates(config: Model, augmentation: Augmentation, *, num_classes: int) -> None:
    """Raises ModelError if the job sets a rate that the model has not got, or was built with 0 of."""
    if augmentation.dropout is None and augmentation.stochastic_depth is None:
        return
    rates = Rates(on_meta(config, num_classes=num_classes))
    for key, wanted, there in (
        ("dropout", augmentation.dropout, rates.has_dropout),
        ("stochastic_depth", augmentation.stochastic_depth, rates.has_stochastic_depth),
    ):
        if wanted is not None and not there:
            raise ModelError(
                f"augmentation.{key}: {config.name} is built without any; delete it, or give the model a rate above 0 "
                f"in model.options"
            )

"""Where a model's parts lie, whatever its family: its layers from the images to the classifier, and its norms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from torch import nn

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_SHORTCUT = "downsample"
"""What torchvision and timm call the branch beside a residual block."""


def layers(model: nn.Module) -> list[list[str]]:
    """The names of a model's parameters, by layer, from the images to the classifier.

    A layer is a block of a kind that the model repeats, such as a bottleneck or a transformer's encoder block, or a
    single convolution or linear map outside of them. A norm outside belongs to the layer before it; what lies in none
    of these, such as a class token or a position embedding, to the first. Modules count in the order in which they are
    registered, which in torchvision's and timm's classifiers is that in which they are computed.
    """
    kinds = Counter(type(module) for module in model.modules())
    own = dict(model.named_parameters())
    found: list[list[str]] = []
    for path, module in _parts(model, "", kinds):
        names = [name for inner, _ in module.named_parameters() if (name := f"{path}.{inner}") in own]
        if names and found and isinstance(module, NORMS):
            found[-1] += names
        elif names:
            found.append(names)
    in_none = own.keys() - set(chain(*found))
    return [[*sorted(in_none), *found[0]], *found[1:]] if found else [sorted(own)]


def _parts(module: nn.Module, path: str, kinds: Counter[type[nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """Repeated blocks, and what stands alone beside them."""
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        is_block = kinds[type(child)] > 1 and not _only_holds(child)
        if is_block or not any(child.children()):
            yield inner, child
        else:
            yield from _parts(child, inner, kinds)


def _only_holds(module: nn.Module) -> bool:
    """Whether a module is a list of others: a stage rather than a block."""
    held = {type(child) for child in module.children()}
    return type(module) in _CONTAINERS or (isinstance(module, _CONTAINERS) and len(held) == 1)


def classifier(model: nn.Module) -> str:
    """The path of the last linear map, or convolution, whose outputs are the logits."""
    return layers(model)[-1][-1].rpartition(".")[0]


def last_norm(model: nn.Module) -> str | None:
    """The path of the last norm before the classifier, none of a shortcut's; None if there is none."""
    paths = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    return next((path for path in reversed(paths) if _SHORTCUT not in path.split(".")), None)

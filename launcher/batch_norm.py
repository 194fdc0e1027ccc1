"""Batch norms at a change of size: their running statistics estimated anew, or held still.

Running statistics are what a norm layer normalises by in evaluation. They follow the images by momentum, so right after
the images have changed they belong to others, and an average of weights drags them along for longer still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics: torch's, synchronised ones, and timm's, which derive from them."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def freeze(model: nn.Module) -> None:
    """Normalise by the running statistics, and leave them alone, until the model's mode is set again."""
    for layer in norm_layers(model):
        layer.training = False  # eval() would reach what timm keeps within its norms: activation and dropout


@dataclass(frozen=True)
class Moments:
    """Of n values per channel: their number (), mean (C,) and sum of squared deviations from it (C,), float64."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, layer: _BatchNorm, values: Tensor) -> Moments:
        """Of the input (N, C, ...) that a layer of momentum 1 has just normalised by.

        Its buffers hold them then: to reduce the input once more took twice as long as the model's whole forward pass.
        """
        assert layer.running_mean is not None
        assert layer.running_var is not None
        number = values.numel() // values.shape[1]
        shares = 1
        if isinstance(layer, nn.SyncBatchNorm) and dist.is_initialized():
            shares = dist.get_world_size(layer.process_group)
        count = torch.tensor(number, dtype=torch.float64, device=values.device)
        # Torch keeps the unbiased variance; that of a synchronised norm is of all ranks' inputs, this one's a share.
        return cls(count, layer.running_mean.double(), layer.running_var.double() * (number - 1 / shares))

    def __add__(self, other: Moments) -> Moments:
        """Of both together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + apart**2 * (self.count * other.count / count))


@torch.no_grad()
def recalibrate(
    models: Sequence[nn.Module], batches: Iterable[Tensor], *, sum_over_ranks: Callable[[Tensor], object] | None = None
) -> None:
    """Set every norm's running mean and variance to those of its inputs over all batches (N, 3, H, W), of all ranks.

    The variance is that of all values together, around their common mean, not a mean of the batches' variances, and
    unbiased, as torch keeps it. Layers see their inputs as in training, with the norms below them normalising by the
    batch, while all else is in evaluation mode: weights stay, and no random number is drawn. `sum_over_ranks` adds a
    tensor up in place, to the same bits on every rank: a collective, so every rank must bring as many batches.
    """
    seen: dict[_BatchNorm, Moments] = {}
    num_batches = 0
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(_watching(model, seen))
        for images in batches:
            num_batches += 1
            for model in models:
                model(images)
    whole = _over_ranks(list(seen.values()), sum_over_ranks) if seen and sum_over_ranks else seen.values()
    for layer, moments in zip(seen, whole, strict=True):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(moments.mean)
        layer.running_var.copy_(moments.squares / (moments.count - 1).clamp(min=1))
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(num_batches)


@contextmanager
def _watching(model: nn.Module, seen: dict[_BatchNorm, Moments]) -> Iterator[None]:
    """Norms in training mode, all else in evaluation mode; what comes to the norms is added to `seen`."""

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, _BatchNorm)
        moments = Moments.of(layer, inputs[0])
        seen[layer] = seen[layer] + moments if layer in seen else moments

    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in norm_layers(model)}
    model.eval()
    hooks = []
    for layer in momenta:
        layer.training, layer.momentum = True, 1.0
        hooks.append(layer.register_forward_hook(note))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
        for layer, momentum in momenta.items():
            layer.momentum = momentum


def _over_ranks(moments: Sequence[Moments], sum_over_ranks: Callable[[Tensor], object]) -> list[Moments]:
    """Each of them over all ranks, in two sums: first the common means, then the deviations from these."""
    widths = [len(one.mean) for one in moments]
    counts = torch.stack([one.count for one in moments])
    sums = torch.cat([counts, *(one.mean * one.count for one in moments)])
    sum_over_ranks(sums)
    totals = sums[: len(moments)]
    means = [total / count for total, count in zip(sums[len(moments) :].split_with_sizes(widths), totals, strict=True)]
    squares = torch.cat(
        [one.squares + one.count * (one.mean - mean) ** 2 for one, mean in zip(moments, means, strict=True)]
    )
    sum_over_ranks(squares)
    return [Moments(*parts) for parts in zip(totals, means, squares.split_with_sizes(widths), strict=True)]

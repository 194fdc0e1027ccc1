"""Build a model by name, its optimizer, and its cost at a resolution."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

from launcher.config import AdamW, Model, Optimizer, Sgd

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
)

_SMALL = "small_resnet"
_SMALL_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(channels // math.gcd(channels, 4), channels),
}


class ModelError(ValueError):
    """The job's model cannot be built."""


class _BlurredConvolution(nn.Module):
    """A 3 x 3 binomial blur before a convolution, so that its stride does not alias (Zhang 2019, arXiv:1904.11486)."""

    kernel: Tensor

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution
        binomial = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(binomial, binomial) / 16
        channels = convolution.in_channels
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        blurred = F.conv2d(images, self.kernel, padding=1, groups=self.convolution.in_channels)
        convolved: Tensor = self.convolution(blurred)
        return convolved


class SmallResNet(nn.Module):
    """A residual network for small images, at any size: (N, 3, H, W) float -> (N, num_classes) logits.

    Three stages of `blocks_per_stage` blocks at full, half and quarter size and 1, 2 and 4 times `width` channels: the
    CIFAR network of He et al. 2016, section 4.2, which has width 16. `norm` is batch, or group: of four channels; then
    how a batch is shared among workers changes the weights by rounding alone. `dropout` stands before the classifier.
    """

    def __init__(
        self, num_classes: int, width: int = 16, blocks_per_stage: int = 3, norm: str = "batch", dropout: float = 0.0
    ):
        super().__init__()
        if norm not in _SMALL_NORMS:
            raise ValueError(f"norm is one of {', '.join(_SMALL_NORMS)}, not {norm!r}")
        norm_layer = _SMALL_NORMS[norm]
        self.stem = nn.Sequential(conv3x3(3, width), norm_layer(width), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        channels = width
        for outputs in (width, 2 * width, 4 * width):
            stride = 1 if outputs == channels else 2
            shortcut = None
            if stride == 2:
                shortcut = nn.Sequential(conv1x1(channels, outputs, stride), norm_layer(outputs))
            blocks.append(BasicBlock(channels, outputs, stride, shortcut, norm_layer=norm_layer))
            blocks += [BasicBlock(outputs, outputs, norm_layer=norm_layer) for _ in range(blocks_per_stage - 1)]
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(images))
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits


def build_model(config: Model, *, num_classes: int, seed: int) -> nn.Module:
    """The job's model with weights initialised from `seed`, float32 on the current default device.

    Raises ModelError for an unknown name or options that the constructor refuses.
    """
    known = [_SMALL, *torchvision.models.list_models(module=torchvision.models)]
    if config.name not in known:
        near = difflib.get_close_matches(config.name, known, n=3)
        raise ModelError(f"model.name: {config.name!r} is not known; {_suggestion(near, known)}")
    torch.manual_seed(seed)
    try:
        if config.name == _SMALL:
            model: nn.Module = SmallResNet(num_classes, **config.options)
        else:
            model = torchvision.models.get_model(config.name, num_classes=num_classes, **config.options)
    except (TypeError, ValueError, OSError) as error:  # an OSError: weights that cannot be downloaded
        raise ModelError(f"model.options: {config.name} cannot be built with {config.options}: {error}") from error
    if config.blurpool:
        _add_blurpool(model)
    return model


def _suggestion(near: Sequence[str], known: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(known)}"


def _add_blurpool(model: nn.Module) -> None:
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= 16:
            setattr(model, name, _BlurredConvolution(child))
        else:
            _add_blurpool(child)


def build_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The job's optimizer over two groups: norm parameters and biases, and all others. The trainer sets the LR."""
    decayed, rest = split_norm_parameters(model)
    rest_decay = config.weight_decay if config.norm_weight_decay is None else config.norm_weight_decay
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": rest_decay},
    ]
    match config:
        case Sgd():
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov)
        case AdamW():
            return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.epsilon)


def split_norm_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that take weight decay, and those that most recipes exempt: of norm layers, and biases."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            exempt = isinstance(module, _NORMS) or name == "bias"
            (rest if exempt else decayed).append(parameter)
    return decayed, rest


def check_model(config: Model, *, num_classes: int, resolutions: Iterable[int]) -> None:
    """Build the model on the meta device and pass images of each size through it: nothing is computed.

    Raises ModelError if it cannot be built, refuses a size, or does not give one logit per class in training.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes=num_classes, seed=0).train()
        for resolution in resolutions:
            try:
                logits = model(torch.empty(2, 3, resolution, resolution))
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


def measure_flops(config: Model, *, num_classes: int, resolutions: Iterable[int]) -> dict[int, float]:
    """FLOPs of one image's forward pass at each resolution, counted on the meta device: nothing is computed."""
    with torch.device("meta"):
        model = build_model(config, num_classes=num_classes, seed=0).eval()
        counted: dict[int, float] = {}
        for resolution in resolutions:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.empty(1, 3, resolution, resolution))
            counted[resolution] = float(counter.get_total_flops())
    return counted

"""A residual network of our own, for images too small for ImageNet's networks."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(channels // math.gcd(channels, 4), channels),
}


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
        if norm not in _NORMS:
            raise ValueError(f"norm is one of {', '.join(_NORMS)}, not {norm!r}")
        norm_layer = _NORMS[norm]
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

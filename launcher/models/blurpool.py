"""Blur before striding (Zhang 2019, arXiv:1904.11486), as ffcv-imagenet's networks do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEWEST_CHANNELS = 16


class BlurredConvolution(nn.Module):
    """A 3 x 3 binomial blur before a convolution, so that its stride does not alias."""

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


def add_blurpool(model: nn.Module) -> None:
    """Put a blur before every strided convolution of at least 16 channels."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= _FEWEST_CHANNELS:
            setattr(model, name, BlurredConvolution(child))
        else:
            add_blurpool(child)

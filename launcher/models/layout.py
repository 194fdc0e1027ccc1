"""A model on its device, in the memory layout that convolutions are fastest in there, and sound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BLOCK = 16
"""Channels that AVX-512 kernels take at once; AVX2's take 8."""


def lay_out(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself, moved to `device` with its channels last.

    On CPUs 1 x 1 convolutions with strides and few channels keep theirs first: oneDNN's gradient of their weights else
    writes past its workspace, which ends the process, hangs it or gives wrong gradients
    (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    model = model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _goes_astray(module):
                module.weight.data = module.weight.data.clone(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_channels_first)
    return model


def _goes_astray(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.in_channels // layer.groups < _BLOCK


def _channels_first(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)

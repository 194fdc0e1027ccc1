"""Convolutions on a CPU lay their channels last, but for those whose gradients would go astray there."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

from launcher.models import lay_out

CPU = torch.device("cpu")


def strided(channels: int, outputs: int = 8) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 1, stride=2, bias=False)


def test_channels_are_last_but_for_small_strided_layers() -> None:
    seen = []
    for layer in (nn.Conv2d(3, 16, 3), strided(16), strided(4)):
        lay_out(layer, CPU).register_forward_hook(
            lambda _, inputs, __: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        layer(torch.randn(2, layer.in_channels, 8, 8).to(memory_format=torch.channels_last))
    assert seen == [True, True, False]


_MANY_STEPS = """
import torch
from torch import nn
from launcher.models import lay_out

torch.manual_seed(0)
kept, worst = [], 0.0
for step in range(200):
    layer = nn.Conv2d(4, 8, 1, stride=2, bias=False)
    exact = nn.Conv2d(4, 8, 1, stride=2, bias=False).double()
    exact.weight.data.copy_(layer.weight.data)
    images = torch.randn(4, 4, 16, 16).to(memory_format=torch.channels_last)
    exact(images.double().contiguous()).square().sum().backward()
    lay_out(layer, torch.device("cpu"))(images).square().sum().backward()
    error = (layer.weight.grad - exact.weight.grad).abs().max() / exact.weight.grad.abs().max()
    worst = max(worst, error.item())
    kept = [*kept[-20:], torch.randn(7)]
assert worst < 1e-4, worst
"""


def test_the_gradient_of_a_small_strided_layer_is_right_and_leaves_other_memory_alone() -> None:
    """Without `lay_out` one or two threads with AVX2 crash, hang or are wrong, in oneDNN 3.12."""
    for threads in (1, 2):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ONEDNN_MAX_CPU_ISA": "AVX2"}
        done = subprocess.run(
            [sys.executable, "-c", _MANY_STEPS], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

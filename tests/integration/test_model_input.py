"""From decoded pixels to what a model computes with."""

from __future__ import annotations

import pytest
import torch

from launcher.model_input import ModelInput, Pixels

PIXELS = Pixels((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
CPU = torch.device("cpu")


def every_grey() -> torch.Tensor:
    """(1, 256, 2, 3): all values in each channel."""
    return torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 2, 3).contiguous()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_input_is_of_the_runs_precision_and_rounded_once(precision: torch.dtype) -> None:
    pixels = every_grey()
    found = ModelInput(PIXELS, CPU, precision).normalise(pixels)
    mean, std = (torch.tensor(three, dtype=torch.float64) for three in (PIXELS.channel_mean, PIXELS.channel_std))
    right = ((pixels.double() - mean) / std).permute(0, 3, 1, 2)
    assert found.dtype is precision
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.double(), right, rtol=torch.finfo(precision).eps, atol=1e-6)


def test_the_pixels_stay_as_they_are() -> None:
    pixels = every_grey()
    ModelInput(PIXELS, CPU, torch.float32).normalise(pixels)
    assert torch.equal(pixels, every_grey())

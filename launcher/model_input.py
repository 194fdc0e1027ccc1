"""From decoded pixels to what a model computes with: normalised, in the run's precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """How uint8 pixels become the model's input: channel statistics in 0..255."""

    channel_mean: tuple[float, float, float]
    channel_std: tuple[float, float, float]


class ModelInput:
    """Normalises on the device, and sets the precision to compute in."""

    def __init__(self, pixels: Pixels, device: torch.device, precision: torch.dtype):
        self._device = device
        self._precision = precision
        self._mean = torch.tensor(pixels.channel_mean, device=device).view(1, 3, 1, 1)
        self._scale = 1 / torch.tensor(pixels.channel_std, device=device).view(1, 3, 1, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) pixels -> normalised (N, 3, H, W) in the run's precision, channels last in memory."""
        # In place and in float32: bfloat16 would round before the mean is taken off, by up to half a grey level.
        return pixels.permute(0, 3, 1, 2).float().sub_(self._mean).mul_(self._scale).to(self._precision)

    def autocast(self) -> AbstractContextManager[object]:
        if self._precision is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._precision)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The autocast dtype; float32 means none. `auto` takes bf16 where the GPU computes it, else fp16; fp32 on CPU."""
    if wanted == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]

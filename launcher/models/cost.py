"""What a model costs at a size."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.utils.flop_counter import FlopCounterMode

from launcher.config import Model
from launcher.models.build import on_meta


def measure_flops(config: Model, *, num_classes: int, resolutions: Iterable[int]) -> dict[int, float]:
    """FLOPs of one image's forward pass at each resolution, counted on the meta device: nothing is computed."""
    model = on_meta(config, num_classes=num_classes).eval()
    counted: dict[int, float] = {}
    for resolution in resolutions:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, resolution, resolution, device="meta"))
        counted[resolution] = float(counter.get_total_flops())
    return counted

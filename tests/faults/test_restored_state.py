"""Each thing that training remembers comes back from a checkpoint by itself; one test for each, so that it is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from launcher.config import Checkpoint
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.saving import Saver, Standing
from launcher.trainer import Trainer
from tests.unit.sample_jobs import make_plan


def make_trainer(*, steps: int) -> Any:
    """What a Saver uses of a trainer, after so many steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 5, 5))
    update = get_ema_multi_avg_fn(0.5)  # type: ignore[no-untyped-call]
    trainer = SimpleNamespace(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2),
        average=AveragedModel(model, multi_avg_fn=update, use_buffers=True),
        synchronise_buffers=lambda: None,
    )
    for _ in range(steps):
        trainer.optimizer.zero_grad()
        trainer.scaler.scale(model(torch.rand(4, 3, 5, 5)).square().sum()).backward()
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()
        trainer.average.update_parameters(model)
    return trainer


REMEMBERED: dict[str, Callable[[Any], object]] = {
    "weights": lambda trainer: [parameter.tolist() for parameter in trainer.model.parameters()],
    "norm statistics": lambda trainer: [buffer.tolist() for buffer in trainer.model.buffers()],
    "momentum": lambda trainer: [
        trainer.optimizer.state[parameter]["momentum_buffer"].tolist() for parameter in trainer.model.parameters()
    ],
    "average": lambda trainer: [tensor.tolist() for tensor in trainer.average.module.state_dict().values()],
    "average's count": lambda trainer: trainer.average.n_averaged.item(),
    "loss scale": lambda trainer: trainer.scaler.state_dict(),
    "random numbers": lambda _: (torch.rand(3).tolist(), random.random(), np.random.rand()),
}


@pytest.mark.parametrize("what", REMEMBERED)
def test_it_comes_back(what: str, tmp_path: Path) -> None:
    trained = make_trainer(steps=3)
    saver = Saver(RunPaths(tmp_path), make_plan({}), Checkpoint(), rank=0)
    saver.save(cast(Trainer, trained), Position(0, 24), Standing())
    before = REMEMBERED[what](trained)
    saved = saver.take_saved(wait=True)
    assert saved is not None
    random.seed(1)
    np.random.seed(1)
    fresh = make_trainer(steps=1)
    assert REMEMBERED[what](fresh) != before

    saver.restore(cast(Trainer, fresh), saved.info.path)

    assert REMEMBERED[what](fresh) == before

"""Every recipe's plan against what its authors published, reckoned here from their own rules, at every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from launcher.job_file import load_job
from launcher.plan import Plan, Position, build_plan

FOLDER = Path(__file__).parents[2] / "jobs"
IMAGENET = 1281167
OWN = {"cifar10-cpu", "demo"}
"""Published nowhere else."""

PerEpoch = Callable[[int], float]


@dataclass(frozen=True)
class Published:
    """What a recipe says for each epoch, at the epoch's start."""

    workers: int
    epochs: int
    resolution: PerEpoch
    global_batch: PerEpoch
    learning_rate: PerEpoch


# ffcv-imagenet: the ramp's first and last epoch for each length, and where rounding to 32 px leaves its one switch.
FFCV_RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}
FFCV_SWITCH = {16: 12, 24: 19, 32: 25, 40: 32, 56: 45, 88: 71}


def ffcv_imagenet(epochs: int, *, workers: int, batch: int, lr: float) -> Published:
    """`get_resolution` and `get_cyclic_lr` of its train_imagenet.py."""
    start_ramp, end_ramp = FFCV_RAMPS[epochs]

    def resolution(epoch: int) -> int:
        if epoch <= start_ramp:
            return 160
        if epoch >= end_ramp:
            return 192
        return int(np.round(np.interp([epoch], [start_ramp, end_ramp], [160, 192])[0] / 32)) * 32

    def learning_rate(epoch: int) -> float:
        return float(np.interp([epoch], [0, 2, epochs], [1e-4 * lr, lr, 0])[0])

    return Published(workers, epochs, resolution, lambda _: batch, learning_rate)


def classic() -> Published:
    """Three phases of 30 epochs, each at an LR of its own, to which it climbs from a tenth."""
    sizes, batches, rates, warmups = (128, 192, 224), (512, 256, 128), (0.1, 0.05, 0.01), (2, 1, 1)

    def learning_rate(epoch: int) -> float:
        phase, within = divmod(epoch, 30)
        return rates[phase] * min(1, 0.1 + 0.9 * within / warmups[phase])

    return Published(1, 90, lambda e: sizes[e // 30], lambda e: batches[e // 30], learning_rate)


RECIPES: dict[str, Published] = {
    **{f"imagenet-rn50-{n}": ffcv_imagenet(n, workers=8, batch=4096, lr=1.7) for n in FFCV_RAMPS},
    **{f"imagenet-rn18-{n}": ffcv_imagenet(n, workers=1, batch=1024, lr=0.5) for n in FFCV_RAMPS},
    "imagenet-rn50-classic": classic(),
}


def plan_of(name: str) -> Plan:
    job = load_job(name)
    assert job.data.num_samples is not None
    return build_plan(job, num_samples=job.data.num_samples, world_size=RECIPES[name].workers)


def test_every_recipe_is_held_against_its_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} - OWN == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_settings_at_every_epoch(name: str) -> None:
    published, plan = RECIPES[name], plan_of(name)
    epochs = range(published.epochs)
    assert plan.num_samples == IMAGENET
    assert [row.epoch for row in plan.rows] == list(epochs)
    assert [row.resolution for row in plan.rows] == [published.resolution(epoch) for epoch in epochs]
    assert [row.global_batch for row in plan.rows] == [published.global_batch(epoch) for epoch in epochs]
    rates = [published.learning_rate(epoch) for epoch in epochs]
    assert [row.lr_start for row in plan.rows] == pytest.approx(rates, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("epochs", FFCV_RAMPS)
def test_ffcvs_ramps_leave_one_switch(epochs: int) -> None:
    sizes = [row.resolution for row in plan_of(f"imagenet-rn50-{epochs}").rows]
    assert sizes.index(192) == FFCV_SWITCH[epochs]


@pytest.mark.parametrize("name", [name for name in RECIPES if name[-2:].isdigit()])
def test_ffcvs_learning_rate_is_a_straight_line_from_epoch_to_epoch(name: str) -> None:
    published, plan = RECIPES[name].learning_rate, plan_of(name)
    for row in plan.rows:
        ends = [published(row.epoch), published(row.epoch + 1)]
        assert row.lr_end == pytest.approx(ends[1], rel=1e-12, abs=1e-15)
        for step in (0, 1, row.steps // 2, row.steps - 1):
            found = plan.learning_rate(Position(row.epoch, step * row.global_batch))
            assert found == pytest.approx(float(np.interp(step, [0, row.steps], ends)), rel=1e-11, abs=1e-15)

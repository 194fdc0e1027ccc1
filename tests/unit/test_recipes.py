"""Every recipe's plan against what its authors published, reckoned here from their own rules, at every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest

from launcher.job_file import load_job
from launcher.plan import Plan, Position
from launcher.planning import build_plan

FOLDER = Path(__file__).parents[2] / "jobs"
IMAGENET = 1281167
OWN = ("cifar10", "demo")
"""How names begin of those that are published nowhere else: what runs here in minutes."""

PerEpoch = Callable[[int], float]


@dataclass(frozen=True)
class Published:
    """What a recipe says for each epoch, at the epoch's start."""

    workers: int
    epochs: int
    resolution: PerEpoch
    global_batch: PerEpoch
    learning_rate: PerEpoch
    magnitude: Callable[[int], float | None] = lambda _: None
    mix: PerEpoch = lambda _: 0.0
    """Of mixup; cutmix has the same, but for `cutmix`."""
    cutmix: PerEpoch | None = None
    policy: str | None = None
    erasing: float = 0.0
    crop_scale: Callable[[int], tuple[float, float]] = lambda _: (0.08, 1.0)


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


def by_phase(phases: list[tuple[int, float]]) -> PerEpoch:
    """(first epoch, value) pairs -> the value of the phase that an epoch lies in."""
    return lambda epoch: next(value for first, value in reversed(phases) if epoch >= first)


def lines(*pieces: tuple[float, float, float, float]) -> PerEpoch:
    """imagenet18's {'ep': (from, to), 'lr': (start, end)}: from, to, start, end."""

    def at(epoch: int) -> float:
        begin, end, start, stop = next(piece for piece in pieces if piece[0] <= epoch < piece[1])
        return start + (stop - start) * (epoch - begin) / (end - begin)

    return at


def fastai(machines: int) -> Published:
    """imagenet18's phases; min_scale is the least share of a crop."""
    if machines == 1:
        s, t, epochs = 224 / 512, 128 / 512, 28
        pieces = [(0, 7, 1, 2), (7, 13, 2, 1 / 4), (13, 22, s, s / 10), (22, 25, s / 10, s / 100)]
        pieces += [(25, 28, t / 100, t / 1000)]
        sizes, batches = [(0, 128), (13, 224), (25, 288)], [(0, 512), (13, 224), (25, 128)]
    else:
        lr, s, t, epochs = 0.5 * 4, 224 / 256, 128 / 256, 30
        pieces = [(0, 6, lr, 2 * lr), (6, 11, 2 * lr, 2 * lr), (11, 13, 2 * lr, lr), (13, 16, lr * s, lr * s)]
        pieces += [(16, 23, lr * s, lr / 10 * s), (23, 28, lr / 10 * s, lr / 100 * s)]
        pieces += [(28, 30, lr / 100 * t, lr / 1000 * t)]
        sizes, batches = [(0, 128), (13, 224), (28, 288)], [(0, 256), (6, 512), (13, 224), (28, 128)]
    rate = lines(*pieces)
    size, batch, gpus = by_phase(list(sizes)), by_phase(list(batches)), 8 * machines
    crops = {128: (0.08, 1.0), 224: (0.087, 1.0), 288: (0.5, 1.0)}
    return Published(gpus, epochs, size, lambda e: batch(e) * gpus, rate, crop_scale=lambda e: crops[int(size(e))])


def efficientnetv2(train_px: int, magnitude: float, mix: float) -> Published:
    """google/automl's main.py: four stages by linspace; utils.py: stairs, and a warm-up to their whole height."""

    def stage(epoch: int) -> int:
        return next(stage for stage in range(4) if epoch < (stage + 1) / 4 * 350)

    def rate(epoch: int) -> float:
        base = 0.016 * 4096 / 256
        return base * epoch / 5 if epoch < 5 else base * 0.97 ** int(round(epoch / 2.4, 9))

    return Published(
        32,
        350,
        lambda e: int(128 + (train_px - 128) * (stage(e) + 1) / 4),
        lambda _: 4096,
        rate,
        magnitude=lambda e: float(np.linspace(5, magnitude, 4)[stage(e)]),
        mix=lambda e: float(np.linspace(0, mix, 4)[stage(e)]),
        policy="rand_augment",
        crop_scale=lambda _: (0.05, 1.0),
    )


def cosine_after_warmup(epochs: int, warmup: int, *, start: float, top: float, end: float = 0.0) -> PerEpoch:
    """A straight line from start to top, then half a cosine over what is left."""

    def rate(epoch: int) -> float:
        if epoch < warmup:
            return start + (top - start) * epoch / warmup
        return end + (top - end) * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2

    return rate


def composer(epochs: int, *, mix: float) -> Published:
    """ProgressiveResizing(0.5, delay 0.4, finetune 0.2, increment 4) of 176 px, asked at the start of each epoch."""

    def size(epoch: int) -> int:
        grown = min(max(epoch / epochs - 0.4, 0) / (1 - 0.2 - 0.4), 1)
        return round(176 * (0.5 + 0.5 * grown) / 4) * 4

    rate = cosine_after_warmup(epochs, 8, start=0, top=2.048)
    return Published(8, epochs, size, lambda _: 2048, rate, mix=lambda _: mix, cutmix=lambda _: 0.0)


def multigrid() -> Published:
    """SlowFast's get_long_cycle_schedule for 90 epochs at 224 px, without a time axis, and with as many epochs."""
    steps, epochs = [0, 30, 60, 80], 90
    shapes = [(round(224**2 / px**2), px) for px in (round(224 * 0.5**0.5), 224)]
    batch_sum = sum(batch for batch, _ in shapes)
    schedule = [
        (step, batch, px, (later - earlier) * batch / batch_sum)
        for step, (earlier, later) in enumerate(pairwise(steps))
        for batch, px in shapes
    ]
    saving = steps[-1] / sum(length / batch for _, batch, _, length in schedule)
    schedule.append((3, 1, 224, (epochs - steps[-1]) / saving))
    scale = epochs / sum(length for *_, length in schedule)
    ends = [round(end * scale) for end in accumulate(length for *_, length in schedule)]
    last_step = (ends[-2] + ends[-1]) // 2

    def at(epoch: int) -> tuple[int, int, int, float]:
        return next(entry for entry, end in zip(schedule, ends, strict=True) if epoch < end)

    def rate(epoch: int) -> float:
        step, batch, *_ = at(epoch)
        step = step if step < 3 else 3 if epoch >= last_step else 2
        return float(0.1 * 0.1**step * batch)

    return Published(8, epochs, lambda e: at(e)[2], lambda e: 256 * at(e)[1], rate)


def variable_batch() -> Published:
    """CoreNet's image_batch_pairs for 160 to 320 px around 224 px and 256 images, a hundred epochs each."""
    wanted = sorted({*np.linspace(160, 320, 5), 224})
    sizes = [int(px + 16) // 32 * 32 for px in wanted]
    batches = {px: int(round(224 * 224 * 256 / px**2, 2)) for px in sizes}
    return Published(
        4,
        600,
        lambda e: sizes[e // 100],
        lambda e: 4 * batches[sizes[e // 100]],
        cosine_after_warmup(600, 6, start=0.05, top=0.4, end=2e-4),
        magnitude=lambda _: 9,
        policy="rand_augment",
        erasing=0.25,
        mix=lambda _: 0.2,
        cutmix=lambda _: 1.0,
    )


TORCHVISION = Published(
    8,
    600,
    lambda _: 176,
    lambda _: 8 * 128,
    cosine_after_warmup(600, 5, start=0.005, top=0.5),
    policy="trivial_augment",
    erasing=0.1,
    mix=lambda _: 0.2,
    cutmix=lambda _: 1.0,
)
FIXRES = Published(8, 56, lambda _: 384, lambda _: 8 * 64, lambda e: 8 * 1e-3 * 0.1 ** (e // 30))

RECIPES: dict[str, Published] = {
    **{f"imagenet-rn50-{n}": ffcv_imagenet(n, workers=8, batch=4096, lr=1.7) for n in FFCV_RAMPS},
    **{f"imagenet-rn18-{n}": ffcv_imagenet(n, workers=1, batch=1024, lr=0.5) for n in FFCV_RAMPS},
    "imagenet-rn50-classic": classic(),
    "imagenet-rn50-fastai-1": fastai(1),
    "imagenet-rn50-fastai-4": fastai(4),
    "imagenet-efficientnetv2-s": efficientnetv2(300, 10, 0),
    "imagenet-efficientnetv2-m": efficientnetv2(384, 15, 0.2),
    "imagenet-efficientnetv2-l": efficientnetv2(384, 20, 0.5),
    "imagenet-rn50-fixres": FIXRES,
    "imagenet-rn50-composer-mild": composer(36, mix=0),
    "imagenet-rn50-composer-medium": composer(135, mix=0.2),
    "imagenet-rn50-torchvision": TORCHVISION,
    "imagenet-rn50-multigrid": multigrid(),
    "imagenet-rn50-variable-batch": variable_batch(),
}


def plan_of(name: str) -> Plan:
    job = load_job(name)
    assert job.data.num_samples is not None
    return build_plan(job, num_samples=job.data.num_samples, world_size=RECIPES[name].workers)


def test_every_recipe_is_held_against_its_source() -> None:
    stems = {path.stem for path in FOLDER.glob("*.yaml")}
    assert {stem for stem in stems if not stem.startswith(OWN)} == set(RECIPES)


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
    assert [row.magnitude for row in plan.rows] == pytest.approx([published.magnitude(epoch) for epoch in epochs])
    assert [row.mixup_alpha for row in plan.rows] == pytest.approx([published.mix(epoch) for epoch in epochs])
    cutmix = published.cutmix or published.mix
    assert [row.cutmix_alpha for row in plan.rows] == pytest.approx([cutmix(epoch) for epoch in epochs])
    assert {(row.policy, row.erasing_probability) for row in plan.rows} == {(published.policy, published.erasing)}
    if name != "imagenet-rn50-fixres":  # it looks at the centre
        assert [row.crop_scale for row in plan.rows] == [published.crop_scale(epoch) for epoch in epochs]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("s", [(171, 5), (214, 6.7), (257, 8.3), (300, 10)]),
        ("m", [(192, 5), (256, 8.3), (320, 11.7), (384, 15)]),
        ("l", [(192, 5), (256, 10), (320, 15), (384, 20)]),
    ],
)
def test_efficientnetv2_has_the_stages_of_its_table(name: str, facts: list[tuple[int, float]]) -> None:
    rows = plan_of(f"imagenet-efficientnetv2-{name}").rows
    stages = dict.fromkeys((row.resolution, round(row.magnitude or 0, 1)) for row in rows)
    assert list(stages) == facts
    assert [sum(row.phase == stage for row in rows) for stage in range(4)] == [88, 87, 88, 87]


def test_fixres_trains_the_classifier_and_the_last_norm_on_what_is_judged() -> None:
    job = load_job("imagenet-rn50-fixres")
    assert {(row.centre_crop, row.trainable) for row in plan_of(job.name).rows} == {(0.875, "classifier_and_last_norm")}
    assert (job.evaluation.resolution, job.evaluation.crop_ratio) == (384, 0.875)


@pytest.mark.parametrize("epochs", FFCV_RAMPS)
def test_ffcvs_ramps_leave_one_switch(epochs: int) -> None:
    sizes = [row.resolution for row in plan_of(f"imagenet-rn50-{epochs}").rows]
    assert sizes.index(192) == FFCV_SWITCH[epochs]


@pytest.mark.parametrize("name", [f"imagenet-rn{depth}-{n}" for depth in (18, 50) for n in FFCV_RAMPS])
def test_ffcvs_learning_rate_is_a_straight_line_from_epoch_to_epoch(name: str) -> None:
    published, plan = RECIPES[name].learning_rate, plan_of(name)
    for row in plan.rows:
        ends = [published(row.epoch), published(row.epoch + 1)]
        assert row.lr_end == pytest.approx(ends[1], rel=1e-12, abs=1e-15)
        for step in (0, 1, row.steps // 2, row.steps - 1):
            found = plan.learning_rate(Position(row.epoch, step * row.global_batch))
            assert found == pytest.approx(float(np.interp(step, [0, row.steps], ends)), rel=1e-11, abs=1e-15)

"""Runs that freeze, thaw and clip, by every optimizer: killed within a phase, they end as if they never had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffcv_datasets.synthetic import CLASSES
from launcher.checkpoint import load, scan
from launcher.coordinator import Done
from launcher.models import build_model
from tests.faults.attempts import Kill
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import JOB, TinyRun, make_job

BATCH = {"global_batch": 20, "crop_scale": [0.5, 1.0], "epochs": 1}
STEPS_PER_EPOCH = 5
PHASES = [
    {**BATCH, "resolution": 12, "trainable": "classifier"},
    {**BATCH, "resolution": 16, "trainable": 2},
    {**BATCH, "resolution": 16},
    {**BATCH, "resolution": 24, "trainable": "classifier_and_last_norm", "centre_crop": 0.875},
]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "momentum": 0.9, "nesterov": True, "layer_decay": 0.7},
    {"name": "adamw", "norm_weight_decay": 0},
    {"name": "rmsprop", "smoothing": 0.9, "momentum": 0.9},
    {"name": "lamb"},
    {"name": "lars"},
]


def initial_weights(path: Path) -> dict[str, torch.Tensor]:
    """A network for two classes, whose classifier does not fit."""
    job = make_job(path.parent, workers=1)
    weights = build_model(job.model, num_classes=2, seed=11).state_dict()
    save_file(weights, path)
    return weights


def run_through(nursery: Nursery, run: TinyRun, kills: list[Kill]) -> TinyRun:
    for kill in kills:
        nursery.run(run.attempt(kill=kill))
        assert run.attempts[-1].killed.exists()
    outcome = nursery.run(run.attempt())
    assert outcome.end == Done(), outcome.error
    return run


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: str(optimizer["name"]))
def test_it_ends_with_the_same_and_trained_no_more_than_it_should(
    optimizer: dict[str, Any], nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    if optimizer["name"] in ("lamb", "lars"):
        pytest.importorskip("timm")
    weights = initial_weights(tmp_path / "start.safetensors")
    job = make_job(
        tiny_data,
        workers=2,
        phases=PHASES,
        optimizer={"weight_decay": 1e-3, "clip_norm": 0.5, **optimizer},
        model={**JOB["model"], "weights": str(tmp_path / "start.safetensors")},
        loss={"name": "bce", "label_smoothing": 0.1},
    )
    whole = run_through(nursery, TinyRun(tmp_path / "whole", job), [])
    # Amid the second phase, then of what is left, amid the last.
    kills = [Kill("trainer.step", rank=1, occurrence=STEPS_PER_EPOCH + 3), Kill("trainer.step", rank=0, occurrence=10)]
    killed = run_through(nursery, TinyRun(tmp_path / "killed", job), kills)
    assert killed.sums() == whole.sums()
    assert_trained(whole, weights)


def assert_trained(run: TinyRun, initial: dict[str, torch.Tensor]) -> None:
    """Hold the weights at the end of each phase against those at its start."""
    at_end = [load(info)[0]["model"] for info in reversed(scan(run.paths.checkpoints).valid)]
    by_phase = {position.epoch: state for position, state in zip(sorted_positions(run), at_end, strict=True)}
    changed = [
        {name for name in later if not torch.equal(later[name], earlier[name]) and "num_batches" not in name}
        for earlier, later in ((by_phase[epoch], by_phase[epoch + 1]) for epoch in (1, 2, 3))
    ]
    assert {name for name in by_phase[1] if not torch.equal(by_phase[1][name], initial[name])} == CLASSIFIER
    assert all(name.startswith(("blocks.1.", "blocks.2.", "classifier.")) for name in changed[0])
    assert {"blocks.1.conv1.weight", "blocks.2.bn1.running_mean", "classifier.bias"} <= changed[0]
    assert {"stem.0.weight", "stem.1.running_var"} <= changed[1]
    assert changed[2] == CLASSIFIER | {f"blocks.2.bn2.{part}" for part in NORM}
    assert len(CLASSES) == load_file(run.paths.model)["classifier.bias"].numel()


CLASSIFIER = {"classifier.weight", "classifier.bias"}
NORM = ("weight", "bias", "running_mean", "running_var")


def sorted_positions(run: TinyRun) -> list[Any]:
    return sorted(info.position for info in scan(run.paths.checkpoints).valid)

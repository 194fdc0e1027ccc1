"""FixRes: what fitting a trained model to a larger size gains, and that the rest of it stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from launcher.cli.app import app
from launcher.cli.fixres import FixresError
from launcher.paths import RunPaths

JOB: dict[str, Any] = {
    "name": "small",
    "seed": 1,
    "model": {"name": "small_resnet", "options": {"width": 8, "blocks_per_stage": 1}},
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "learning_rate": {"base": 0.1, "base_batch": 32, "shape": {"kind": "cosine"}},
    "phases": [{"epochs": 6, "resolution": 16, "global_batch": 16, "crop_scale": [0.8, 1.0]}],
    "evaluation": {"crop_ratio": 1.0},
    "run": {"threads_per_worker": 1},
}
STRIPES = (1, 2, 3, 4)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def draw_stripes(folder: Path, num_images: int, seed: int) -> None:
    """Images of 48 px whose class is their number of stripes: at twice the size those look like half as many."""
    generator = np.random.default_rng(seed)
    across = np.arange(48) / 48
    for number in range(num_images):
        cycles = STRIPES[number % len(STRIPES)]
        wave = np.sin(2 * np.pi * (cycles * across + generator.random()))
        grey = 127 + 80 * np.broadcast_to(wave, (48, 48)) + generator.normal(0, 20, (48, 48))
        path = folder / f"{cycles}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A network that tells stripes apart at 16 px."""
    folder = tmp_path_factory.mktemp("trained")
    draw_stripes(folder / "images" / "train", 320, seed=0)
    draw_stripes(folder / "images" / "val", 120, seed=1)
    assert invoke("data", "write", folder / "images", folder / "data.beton").exit_code == 0
    data = {name: str(folder / f"data.{name}.beton") for name in ("train", "val")}
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({**JOB, "data": data}))
    paths = RunPaths(folder / "run")
    assert invoke("run", job, "--run-dir", paths.root).exit_code == 0
    return paths


def test_fitting_classifier_and_last_norm_to_a_larger_size_gains_accuracy_there(
    trained: RunPaths, tmp_path: Path
) -> None:
    fitted = RunPaths(tmp_path / "fitted")
    result = invoke("fixres", trained.root, "--size", 32, "--epochs", 3, "--lr", 0.5, "--out", fitted.root)
    assert result.exit_code == 0
    told = json.loads(fitted.fixres.read_text())
    before, after = ({at["resolution"]: at["top1"] for at in told[when]} for when in ("before", "after"))
    assert after[32] >= before[32] + 0.3
    assert f"{100 * (after[32] - before[32]):+.2f}" in result.output
    old, new = load_file(trained.model), load_file(fitted.model)
    changed = {name.rpartition(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"blocks.2.bn2", "classifier"}


def test_the_same_command_goes_on_with_the_run_and_shows_the_table_again(trained: RunPaths, tmp_path: Path) -> None:
    arguments = ("fixres", trained.root, "--size", 32, "--epochs", 1, "--blocks", 1, "--out", tmp_path / "fitted")
    first, again = invoke(*arguments), invoke(*arguments)
    assert "is finished already" in again.output
    assert first.output.splitlines()[-6:] == again.output.splitlines()[-6:]


def test_a_run_that_is_not_finished_is_refused(trained: RunPaths, tmp_path: Path) -> None:
    kept = trained.model.rename(tmp_path / "model.safetensors")
    try:
        with pytest.raises(FixresError, match="is not finished"):
            invoke("fixres", trained.root, "--size", 32)
    finally:
        kept.rename(trained.model)

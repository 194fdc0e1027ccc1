"""FixRes: what fitting a trained model to a larger size gains, and that the rest of it stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from launcher.cli.app import app
from launcher.cli.errors import STOPPED, WRONG_INPUT
from launcher.cli.evaluate import EvaluationError
from launcher.cli.fixres import FixresError
from launcher.event_log import read_events
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.run_directory import open_run_directory

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


def test_a_stopped_one_goes_on_by_the_same_command_and_shows_the_table(trained: RunPaths, tmp_path: Path) -> None:
    fitted = RunPaths(tmp_path / "fitted")
    arguments = ("fixres", trained.root, "--size", 32, "--epochs", 12, "--out", fitted.root)
    command = [sys.executable, "-m", "launcher", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and "epoch_trained" not in names(fitted):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == STOPPED, output
    assert "or by the same command as now, which then shows the table, too" in output
    assert not fitted.fixres.exists()

    result = invoke(*arguments)
    assert result.exit_code == 0
    assert "before" in result.output
    assert json.loads(fitted.fixres.read_text())["data"] == load_job(str(trained.job)).data.val
    assert names(fitted).count("attempt_started") == 2


def names(run: RunPaths) -> list[str]:
    return [event["event"] for event in read_events(run.events)] if run.events.is_file() else []


def test_a_run_that_is_not_finished_is_refused_with_what_to_do(trained: RunPaths, tmp_path: Path) -> None:
    kept = trained.model.rename(tmp_path / "model.safetensors")
    try:
        with pytest.raises(FixresError, match=r"is not finished; `resolute resume .*` first"):
            invoke("fixres", trained.root, "--size", 32)
        with (
            open_run_directory(trained.root),
            pytest.raises(FixresError, match=f"process {os.getpid()} on .* is at it; give this command again"),
        ):
            invoke("fixres", trained.root, "--size", 32)
    finally:
        kept.rename(trained.model)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_a_learning_rate_that_is_none_is_refused_in_a_sentence(rate: str, trained: RunPaths) -> None:
    with pytest.raises(FixresError, match=f"--lr {rate}: is a learning rate, a number above 0; 0.008 when absent"):
        invoke("fixres", trained.root, "--size", 32, "--lr", rate)


@pytest.mark.parametrize(("option", "other"), [("--epochs", "--size"), ("--size", "--epochs")])
def test_no_epochs_and_no_pixels_are_wrong_input(option: str, other: str, trained: RunPaths) -> None:
    result = invoke("fixres", trained.root, option, 0, other, 32)
    assert result.exit_code == WRONG_INPUT
    assert f"Invalid value for '{option}'" in click.unstyle(result.output)


def test_a_job_without_validation_data_is_given_some(trained: RunPaths, tmp_path: Path) -> None:
    blind = RunPaths(Path(shutil.copytree(trained.root, tmp_path / "blind")))
    job = yaml.safe_load(blind.job.read_text())
    val = job["data"].pop("val")
    blind.job.write_text(yaml.safe_dump(job))
    arguments = ("fixres", blind.root, "--size", 32, "--epochs", 1)
    with pytest.raises(EvaluationError, match=r"no data.val; give the data to judge by as --data"):
        invoke(*arguments)
    assert invoke(*arguments, "--data", val).exit_code == 0
    assert json.loads(RunPaths(tmp_path / "blind-fixres-32").fixres.read_text())["data"] == val

"""A job that trains in seconds on a drawn data set, and how tests run it as a user does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from launcher.paths import RunPaths

JOB: dict[str, Any] = {
    "name": "toy",
    "seed": 3,
    "model": {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1}},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
    "learning_rate": {"base": 0.1, "base_batch": 32},
    "phases": [
        {"epochs": 2, "resolution": 12, "global_batch": 32, "crop_scale": [0.5, 1.0]},
        {"epochs": 2, "resolution": 16, "global_batch": 16, "crop_scale": [0.5, 1.0], "warmup_epochs": 1},
        {"epochs": 1, "resolution": 24, "global_batch": 16, "crop_scale": [0.5, 1.0]},
    ],
    # One step a lease: many places to die at, the same ones on a fast and on a slow machine.
    "run": {"mode": "single", "lease_s": 1e-6, "threads_per_worker": 1},
}


def write_job(folder: Path, data: Path, **changes: object) -> Path:
    """The toy job on the data set in `data`, as a file in `folder`."""
    sets = {"train": str(data / "train.beton"), "val": str(data / "val.beton")}
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**JOB, "data": sets, **changes}))
    return path


def resolute(*arguments: object, failpoint: str = "", timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """`resolute ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "launcher", *map(str, arguments)]
    environment = {**os.environ, "RESOLUTE_FAILPOINT": failpoint, "COLUMNS": "120"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def final_sums(paths: RunPaths) -> dict[str, str]:
    """Of the final weights, and of everything that the last checkpoint restores."""
    last = max(paths.checkpoints.iterdir())
    parts = {path.name: sha256(path) for path in sorted(last.glob("*.safetensors"))}
    return {"final": sha256(paths.model), **parts}

"""A run that is over in seconds and yet has everything that a resume could lose, and the sums of what it ends with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.checkpoint import scan
from launcher.config import JobConfig
from launcher.event_log import read_events
from launcher.paths import RunPaths
from launcher.plan import Plan
from launcher.planning import build_plan
from tests.faults.attempts import Attempt, Kill, StopRequest, Traces

NUM_SAMPLES = 100
"""To train on; every global batch below leaves a tail."""
JOB: dict[str, Any] = {
    "name": "tiny",
    "seed": 5,
    # Norm statistics, and random numbers that each rank draws for itself.
    "model": {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1, "dropout": 0.2}},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
    "ema": {"decay": 0.8, "every_steps": 3},
    "learning_rate": {"base": 0.1, "base_batch": 12, "shape": {"kind": "cosine"}},
    "phases": [
        {"epochs": 1, "resolution": 12, "global_batch": 18, "crop_scale": [0.5, 1.0]},
        {
            "epochs": 2,
            "resolution": 16,
            "global_batch": 12,
            "crop_scale": [0.5, 1.0],
            "warmup_epochs": 1,
            "norm": {"kind": "recalibrate", "num_batches": 3},
        },
        {
            "epochs": 1,
            "resolution": 24,
            "global_batch": 12,
            "crop_scale": [0.35, 1.0],
            "lr_scale": 0.5,
            "norm": {"kind": "freeze", "epochs": 1},
        },
    ],
    # One step a lease; a checkpoint after every third directive within an epoch, by the driver's own clock.
    "run": {"mode": "ray", "lease_s": 1e-6, "threads_per_worker": 1, "attempts_without_progress": 5},
    "checkpoint": {"every_minutes": 3},
}


def draw_data(folder: Path) -> Path:
    """NUM_SAMPLES to train on and 25 to evaluate on, of 24 px; returns the folder."""
    folder.mkdir(parents=True)
    parts = [
        (folder / "train.beton", DrawnSamples(seed=0, size=24, num_samples=NUM_SAMPLES)),
        (folder / "val.beton", DrawnSamples(seed=0, size=24, num_samples=25, validation=True)),
    ]
    write_betons(parts, Encoding(), num_workers=1)
    return folder


def make_job(data: Path, *, workers: int | dict[str, int], **changes: Any) -> JobConfig:
    """The tiny job on the data set in `data`, with whole sections replaced."""
    sets = {"train": str(data / "train.beton"), "val": str(data / "val.beton")}
    run = {**JOB["run"], "workers": workers}
    return JobConfig.model_validate({**JOB, "data": sets, "run": run, **changes})


@dataclass
class TinyRun:
    """A run directory, and the traces of the attempts at it."""

    folder: Path
    job: JobConfig
    attempts: list[Traces] = field(default_factory=list)

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.folder / "run")

    @cached_property
    def plan(self) -> Plan:
        return build_plan(self.job, num_samples=NUM_SAMPLES, world_size=self.job.run.most_workers)

    def attempt(
        self, *, kill: Kill | None = None, stop: StopRequest | None = None, workers: int | None = None
    ) -> Attempt:
        """The next attempt, from where the last one ended."""
        self.attempts.append(Traces(self.folder / f"attempt{len(self.attempts):03d}"))
        return Attempt(self.job, self.paths.root, self.attempts[-1], kill, stop, workers)

    def sums(self) -> dict[str, str]:
        """SHA-256 of the final weights, and of all that the checkpoint of each phase boundary restores."""
        newest = {checkpoint.position: checkpoint for checkpoint in reversed(scan(self.paths.checkpoints).valid)}
        sums = {"final": hashlib.sha256(self.paths.model.read_bytes()).hexdigest()}
        for position in self.plan.phase_boundaries():
            checkpoint = newest[position]
            parts = {part: file.sha256 for part, file in checkpoint.parts.items()}
            told = {name: fact for name, fact in checkpoint.facts.items() if name != "run"}  # each run has its own
            facts = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            sums |= {f"epoch {position.epoch}: {what}": sum_ for what, sum_ in {**parts, "facts": facts}.items()}
        return sums

    def evaluations(self) -> dict[tuple[int, str, int], float]:
        """The last top-1 accuracy told for each epoch, moment and size."""
        evaluated = (event for event in read_events(self.paths.events) if event["event"] == "evaluated")
        return {(event["epoch"], event["moment"], event["resolution"]): event["top1"] for event in evaluated}

    def passages(self, rank: int) -> Counter[str]:
        """How often the process of `rank` came past each failpoint, over all attempts."""
        files = (attempt.passages(rank) for attempt in self.attempts)
        return Counter(name for file in files if file.exists() for name in file.read_text().split())

"""Settles `batch_per_worker: auto` before a job is planned: has the batches found, in a process that then is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from launcher.batch_size import BatchSizeError, open_phases
from launcher.config import JobConfig
from launcher.memory import available_bytes

_SHARE_OF_MEMORY = 0.5
"""What workers may take together of a machine's free memory: decoding and the system need some, too."""
_MEMORY_RULES = ("trainable", "norm")
"""What of a phase its memory depends on besides its size."""
_LAST_LINES = 3


@dataclass(frozen=True)
class Request:
    """What to find batches for."""

    job: JobConfig
    num_classes: int
    num_samples: int
    budget_bytes: int
    """For one worker, on a machine without a GPU."""
    again: bool = False
    """Search even if it was done before."""

    def to_json(self) -> dict[str, Any]:
        rest = {name: getattr(self, name) for name in ("num_classes", "num_samples", "budget_bytes", "again")}
        return {"job": self.job.model_dump(mode="json"), **rest}

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> Request:
        return cls(**{**entries, "job": JobConfig.model_validate(entries["job"])})

    def key(self, phase: int, *, device: str, memory_bytes: int | None, at_most: int) -> dict[str, Any]:
        """All that the batch of a phase depends on."""
        job, found_for = self.job, self.job.phases[phase]
        return {
            "device": device,
            "memory_bytes": memory_bytes,
            "torch": version("torch"),
            "model": job.model.model_dump(mode="json", exclude={"weights", "pretrained"}),
            "num_classes": self.num_classes,
            "optimizer": job.optimizer.model_dump(mode="json"),
            "loss": job.loss.name,
            "average": job.ema is not None,
            "augmentation": job.augmentation.model_dump(mode="json"),
            "precision": job.run.precision,
            "resolution": open_phases(job)[phase],
            "accumulates": found_for.global_batch is not None,
            "at_most": at_most,
            **found_for.model_dump(mode="json", include=set(_MEMORY_RULES)),
        }


@dataclass(frozen=True)
class Finding:
    """The batch of a phase, found at its largest size in pixels."""

    phase: int
    resolution: int
    batch: int
    memory_bytes: int
    """Peak of a training step; of the whole process on a CPU."""
    device: str
    earlier: bool
    """Whether it was known from an earlier search."""


def find_batches(job: JobConfig, *, num_classes: int, num_samples: int, again: bool = False) -> list[Finding]:
    """The batches of the phases that leave theirs open, on this machine.

    Raises BatchSizeError if there is none for a phase, or if the search failed.
    """
    budget = int(available_bytes() * _SHARE_OF_MEMORY / job.run.most_workers)
    request = Request(job, num_classes, num_samples, budget, again)
    command = [sys.executable, "-m", "launcher.batch_trial"]
    done = subprocess.run(command, input=json.dumps(request.to_json()), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or "it was killed, perhaps for want of memory"
        raise BatchSizeError(
            f"batch_per_worker: auto: the search failed with exit code {done.returncode}; give numbers\n{told}"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise BatchSizeError(answer["error"])
    return [Finding(**finding) for finding in answer["findings"]]

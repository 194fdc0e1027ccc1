"""A run's model, read back to be judged or trained on: its final weights, or those of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from launcher.checkpoint import load, newest_valid
from launcher.config import JobConfig
from launcher.data_facts import read_data_facts
from launcher.job_file import load_job
from launcher.listing import told_checkpoints
from launcher.manifest import verify
from launcher.model_input import Pixels
from launcher.models import build_model
from launcher.paths import RunPaths
from launcher.planning import resolutions

_AVERAGED = "module."
"""What torch's AveragedModel puts before each name."""


class TrainedModelError(ValueError):
    """A run directory holds no model that can be read."""


@dataclass(frozen=True)
class TrainedModel:
    model: nn.Module
    job: JobConfig
    num_classes: int
    pixels: Pixels
    train_resolution: int
    """The last size in pixels that the job trains at."""
    source: Path
    """The file, or checkpoint, that the weights come from."""


def load_trained(paths: RunPaths, checkpoint: Path | None = None) -> TrainedModel:
    """The run's final weights; those of `checkpoint`, or of the newest one while the run is not finished.

    Where the job keeps an average, that is meant. Raises TrainedModelError, CheckpointError or JobError.
    """
    if not paths.job.is_file():
        raise TrainedModelError(f"{paths.root} is no run directory ({paths.job.name} is missing); see `ls runs`")
    job = load_job(str(paths.job))
    source = checkpoint or (paths.model if paths.model.is_file() else _newest(paths))
    weights = _read_export(source) if source == paths.model else _read_checkpoint(source)
    num_classes, pixels = _facts(job, paths, source)
    model = build_model(job.model, num_classes=num_classes, seed=0)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise TrainedModelError(f"{source} does not fit the job's model {job.model.name}: {error}") from error
    return TrainedModel(model, job, num_classes, pixels, resolutions(job)[-1], source)


def _newest(paths: RunPaths) -> Path:
    newest = newest_valid(paths.checkpoints, told=told_checkpoints(paths)).newest
    if newest is None:
        raise TrainedModelError(f"{paths.root} holds neither {paths.model.name} nor a checkpoint; train first")
    return newest.path


def _read_export(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainedModelError(f"{path} cannot be read: {error}; name a checkpoint by --checkpoint") from error


def _read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    parts, _ = load(verify(path))
    if "average" not in parts:
        return parts["model"]
    average = parts["average"]
    return {name.removeprefix(_AVERAGED): tensor for name, tensor in average.items() if name.startswith(_AVERAGED)}


def _facts(job: JobConfig, paths: RunPaths, source: Path) -> tuple[int, Pixels]:
    """Classes and pixel statistics: told with the final weights, else by the data."""
    if source == paths.model:
        with safe_open(source, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("resolute", "null"))
        if told is not None:
            return told["num_classes"], Pixels(tuple(told["channel_mean"]), tuple(told["channel_std"]))
    facts = read_data_facts(job, source=str(paths.job))
    return facts.num_classes, Pixels(facts.channel_mean, facts.channel_std)

"""Everything decided before a worker starts: the job, its plan, its data, and where in the plan to begin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.checkpoint import newest_valid
from launcher.config import JobConfig
from launcher.coordinator import Cadence, Coordinator
from launcher.data_facts import DataFacts, read_data_facts
from launcher.durable import write_atomically
from launcher.job_file import dump_job
from launcher.models import check_model
from launcher.paths import RunPaths
from launcher.plan import Plan, Position, build_plan, differences, resolutions

_DECISIVE = {
    "model": None,
    "loss": None,
    "optimizer": None,
    "data": ("loader", "num_classes", "channel_mean", "channel_std"),
    "run": ("precision",),
}
"""What decides the weights besides the plan: keys by section, None for all that the section has."""


class ChangedJobError(ValueError):
    """The run directory holds a run of another job or plan."""


@dataclass(frozen=True)
class RunSetup:
    """Handed to every worker; picklable."""

    job: JobConfig
    plan: Plan
    data: DataFacts
    root: Path
    """The run directory, absolute."""
    start: Position
    checkpoint: Path | None
    """Where `start`'s state lies; None for a fresh start."""
    rejected_checkpoints: tuple[str, ...] = ()

    def coordinator(self) -> Coordinator:
        """A coordinator that leads the workers from `start`."""
        job = self.job
        cadence = Cadence(
            evaluate_every_epochs=job.evaluation.every_epochs if job.data.val else 0,
            evaluation_resolution=job.evaluation.resolution,
            checkpoint_every_epochs=job.checkpoint.every_epochs,
            lease_s=job.run.lease_s,
        )
        return Coordinator(self.plan, start=self.start, cadence=cadence)


def check_job(job: JobConfig, *, source: str) -> tuple[JobConfig, Plan, DataFacts]:
    """The job with absolute data paths, its plan, and its data's facts. Raises JobError, PlanError or ModelError."""
    data = read_data_facts(job, source=source)
    plan = build_plan(job, num_samples=data.num_samples, world_size=job.run.workers)
    sizes = [*resolutions(job), *filter(None, [job.evaluation.resolution])]
    check_model(job.model, num_classes=data.num_classes, resolutions=sizes)
    return _with_absolute_paths(job), plan, data


def prepare_run(job: JobConfig, plan: Plan, data: DataFacts, *, paths: RunPaths, accept_changes: bool) -> RunSetup:
    """Find where to begin in an owned run directory, and keep job and plan there.

    Raises ChangedJobError if the directory holds checkpoints of another job or plan, unless `accept_changes`; and
    CheckpointError if none of its checkpoints can be used.
    """
    found = newest_valid(paths.checkpoints)
    newest = found.valid[0] if found.valid else None
    if newest is not None:
        changes = _changes(job, plan, paths)
        if changes and not accept_changes:
            raise ChangedJobError(
                f"{paths.root} holds a run of another plan:\n  " + "\n  ".join(changes) + "\n"
                "take another --run-dir, undo the changes, or go on with the new plan by --accept-changes"
            )
        _refuse_misfit(plan, newest.position, paths)
    write_atomically(paths.job, dump_job(job))
    write_atomically(paths.plan, json.dumps(plan.to_json(), indent=1) + "\n")
    return RunSetup(
        job=job,
        plan=plan,
        data=data,
        root=paths.root,
        start=newest.position if newest else Position(0),
        checkpoint=newest.path if newest else None,
        rejected_checkpoints=tuple(rejected.reason for rejected in found.rejected),
    )


def _changes(job: JobConfig, plan: Plan, paths: RunPaths) -> list[str]:
    """What decides the weights and differs from what the run directory holds, a line each."""
    old_plan = json.loads(paths.plan.read_text())
    old_job = yaml.safe_load(paths.job.read_text())
    new_job = job.model_dump(mode="json")
    lines = [
        f"{section}.{key}: {old_job[section].get(key)} -> {value}"
        for section, keys in _DECISIVE.items()
        for key, value in new_job[section].items()
        if (keys is None or key in keys) and old_job[section].get(key) != value
    ]
    if old_plan["fingerprint"] == plan.fingerprint:
        return lines
    within_epochs = f"the learning rate within epochs (compare learning_rate and phases in {paths.job.name})"
    return [*lines, *(differences(old_plan, _plain(plan)) or [within_epochs])]


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as it reads back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return plain


def _refuse_misfit(plan: Plan, position: Position, paths: RunPaths) -> None:
    """A changed plan must still have the position that was reached."""
    if position > plan.end:
        raise ChangedJobError(f"{paths.root} has trained {position.epoch} epochs, the plan has only {plan.end.epoch}")
    if position.samples_done == 0:
        return
    row = plan.rows[position.epoch]
    if position.samples_done % row.global_batch or position.samples_done >= row.num_samples:
        raise ChangedJobError(
            f"{paths.root} stopped at sample {position.samples_done} of epoch {position.epoch}, where no step of the "
            f"new plan starts (global batch {row.global_batch}); finish that epoch with the old plan first"
        )


def _with_absolute_paths(job: JobConfig) -> JobConfig:
    """So that a run can be resumed from any directory."""
    paths = {key: str(Path(path).absolute()) for key in ("train", "val") if (path := getattr(job.data, key))}
    return job.model_copy(update={"data": job.data.model_copy(update=paths)})

"""Everything decided before a worker starts: the job, its plan, its data, and where in the plan to begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from launcher.checkpoint import Scan, newest_valid
from launcher.config import JobConfig
from launcher.coordinator import Cadence, Coordinator
from launcher.data_facts import DataFacts, read_data_facts
from launcher.durable import write_atomically
from launcher.events import AttemptStarted
from launcher.heartbeat import Claim
from launcher.job_file import dump_job
from launcher.listing import told_checkpoints
from launcher.models import check_model, check_optimizer, check_rates, check_trainable, check_weights
from launcher.paths import RunPaths
from launcher.plan import BEGINNING, Plan, Position, differences
from launcher.planning import PlanError, build_plan, feasible_world, resolutions

_DECISIVE = {
    "model": None,
    "loss": None,
    "optimizer": None,
    "ema": None,
    "augmentation": None,
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
    claim: Claim | None = None
    """The owner's on the run directory; None where nobody else can write there."""
    accept_changes: bool = False
    """Whether the checkpoints of another run are taken, too."""
    checkpoint: Path | None = None
    """Where `start`'s state lies; None for a fresh start."""
    evaluated: bool = True
    """Whether the epoch that ends at `start` has been evaluated."""
    rejected_checkpoints: tuple[str, ...] = ()

    def coordinator(self) -> Coordinator:
        """A coordinator that leads the workers from `start`."""
        job = self.job
        cadence = Cadence(
            evaluate_every_epochs=job.evaluation.every_epochs if job.data.val else 0,
            evaluation_resolution=job.evaluation.resolution,
            checkpoint_every_epochs=job.checkpoint.every_epochs,
            checkpoint_every_s=60 * job.checkpoint.every_minutes if job.checkpoint.every_minutes else None,
            lease_s=job.run.lease_s,
            grace_s=job.run.grace_s,
        )
        return Coordinator(self.plan, start=self.start, cadence=cadence, evaluated=self.evaluated)


def check_job(job: JobConfig, *, source: str) -> tuple[JobConfig, Plan, DataFacts]:
    """The job with absolute data paths, its plan for as many workers as it may have, and its data's facts.

    Raises JobError, PlanError, ModelError or OptimizerError.
    """
    data = read_data_facts(job, source=source)
    if job.run.mode == "single" and job.run.least_workers > 1:
        raise PlanError(f"run.workers: {job.run.least_workers}, but run.mode: single has one; use --mode ray")
    available = 1 if job.run.mode == "single" else job.run.most_workers
    world_size = feasible_world(job, num_samples=data.num_samples, available=available)
    plan = build_plan(job, num_samples=data.num_samples, world_size=world_size)
    sizes = [*resolutions(job), *filter(None, [job.evaluation.resolution])]
    check_model(job.model, num_classes=data.num_classes, resolutions=sizes)
    by_phase = [phase.trainable for phase in job.phases]
    check_trainable(job.model, num_classes=data.num_classes, by_phase=by_phase)
    check_rates(job.model, job.augmentation, num_classes=data.num_classes)
    check_optimizer(job.optimizer)
    return _with_absolute_paths(job), plan, data


def prepare_run(
    job: JobConfig,
    plan: Plan,
    data: DataFacts,
    *,
    paths: RunPaths,
    accept_changes: bool,
    claim: Claim | None = None,
) -> RunSetup:
    """Find where to begin in an owned run directory, and keep job and plan there.

    Raises ChangedJobError if the directory holds checkpoints of another job or plan, unless `accept_changes`; and
    CheckpointError if none of its checkpoints can be used; for a new run ModelError if it cannot start from the weights
    that the job names.
    """
    setup = RunSetup(job, plan, data, paths.root, start=BEGINNING, claim=claim, accept_changes=accept_changes)
    found = _find(setup)
    if found.newest is not None:
        changes = _changes(job, plan, paths)
        if changes and not accept_changes:
            raise ChangedJobError(
                f"{paths.root} holds a run of another plan:\n  " + "\n  ".join(changes) + "\n"
                "take another --run-dir, undo the changes, or go on with the new plan by --accept-changes"
            )
    else:
        check_weights(job.model, num_classes=data.num_classes)
    setup = _go_on(setup, found, plan.world_size)
    write_atomically(paths.job, dump_job(job))
    return setup


def keep_open_job(job: JobConfig, data: DataFacts, *, paths: RunPaths, claim: Claim) -> None:
    """Keep a job in an owned run directory whose batches are found at its start; the plan follows from them.

    Raises ChangedJobError if the directory holds checkpoints, which have their batches; otherwise as `prepare_run`.
    """
    if newest_valid(paths.checkpoints, run=claim.run, told=told_checkpoints(paths)).newest is not None:
        raise ChangedJobError(
            f"{paths.root} has trained with numbers where batch_per_worker is auto now: give numbers, or take another "
            "--run-dir"
        )
    check_weights(job.model, num_classes=data.num_classes)
    paths.plan.unlink(missing_ok=True)
    write_atomically(paths.job, dump_job(job))


def next_attempt(setup: RunSetup, *, world_size: int) -> RunSetup:
    """Go on with so many workers from the newest valid checkpoint that is there now.

    Raises CheckpointError if there are checkpoints and none can be used.
    """
    return _go_on(setup, _find(setup), world_size)


def _find(setup: RunSetup) -> Scan:
    run = setup.claim.run if setup.claim and not setup.accept_changes else None
    paths = RunPaths(setup.root)
    return newest_valid(paths.checkpoints, run=run, told=told_checkpoints(paths))


def attempt_started(setup: RunSetup) -> AttemptStarted:
    """What is reported as an attempt begins."""
    return AttemptStarted(
        job=setup.job.name,
        mode=setup.job.run.mode,
        world_size=setup.plan.world_size,
        plan_fingerprint=setup.plan.fingerprint,
        epoch=setup.start.epoch,
        samples_done=setup.start.samples_done,
        checkpoint=setup.checkpoint.name if setup.checkpoint else None,
        rejected_checkpoints=setup.rejected_checkpoints,
    )


def _go_on(setup: RunSetup, found: Scan, world_size: int) -> RunSetup:
    """The run from its newest checkpoint on, by the plan for so many workers, which is kept in the run directory.

    Raises ChangedJobError if the plan does not reach as far as the checkpoint.
    """
    paths = RunPaths(setup.root)
    reached = found.newest.position if found.newest else BEGINNING
    if reached > setup.plan.end:
        raise ChangedJobError(
            f"{paths.root} has trained {reached.epoch} epochs, the plan has only {setup.plan.end.epoch}"
        )
    plan = build_plan(setup.job, num_samples=setup.plan.num_samples, world_size=world_size, start=reached)
    write_atomically(paths.plan, json.dumps(plan.to_json(), indent=1) + "\n")
    evaluated_epoch = found.newest.fact("standing", "evaluated_epoch") if found.newest else None
    start = _first_step(plan, reached)
    return replace(
        setup,
        plan=plan,
        start=start,
        checkpoint=found.newest.path if found.newest else None,
        evaluated=evaluated_epoch == start.epoch - 1,
        rejected_checkpoints=tuple(rejected.reason for rejected in found.rejected),
    )


def _first_step(plan: Plan, reached: Position) -> Position:
    """Where the next step begins: in the next epoch if what is left of this one fills no batch of the plan's."""
    if reached.samples_done and reached.samples_done >= plan.rows[reached.epoch].num_samples:
        return Position(reached.epoch + 1)
    return reached


def _changes(job: JobConfig, plan: Plan, paths: RunPaths) -> list[str]:
    """What decides the weights and differs from what the run directory holds, a line each.

    Another number of workers is no change to a job that leaves it open.
    """
    try:
        old_plan = json.loads(paths.plan.read_text())
        lines = _job_changes(yaml.safe_load(paths.job.read_text()), job)
        old_plan["world_size"], old_plan["fingerprint"], old_plan["rows"][-1]["epoch"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        return [f"unknown, as {paths.plan.name} or {paths.job.name} is damaged or not ours ({error})"]
    if job.run.least_workers <= old_plan["world_size"] <= job.run.most_workers:
        plan = build_plan(job, num_samples=plan.num_samples, world_size=old_plan["world_size"])
    if old_plan["fingerprint"] == plan.fingerprint:
        return lines
    within_epochs = f"the learning rate within epochs (compare learning_rate and phases in {paths.job.name})"
    return [*lines, *(differences(old_plan, _plain(plan)) or [within_epochs])]


def _job_changes(old_job: Any, job: JobConfig) -> list[str]:
    new_job = job.model_dump(mode="json")
    return [
        f"{section}.{key}: {old} -> {new}"
        for section, keys in _DECISIVE.items()
        for key, old, new in _differing(old_job.get(section) or {}, new_job.get(section) or {})
        if keys is None or key in keys
    ]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as it reads back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return plain


def _with_absolute_paths(job: JobConfig) -> JobConfig:
    """So that a run can be resumed from any directory."""
    paths = {key: str(Path(path).absolute()) for key in ("train", "val") if (path := getattr(job.data, key))}
    weights = {"weights": str(Path(job.model.weights).absolute())} if job.model.weights else {}
    return job.model_copy(
        update={"data": job.data.model_copy(update=paths), "model": job.model.model_copy(update=weights)}
    )

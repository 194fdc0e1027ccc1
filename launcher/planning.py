"""job + number of samples + world size -> the plan: every epoch's row, or why there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from launcher.config import FreezeNorm, JobConfig, Norm, Phase, RecalibrateNorm
from launcher.plan import BEGINNING, EpochSpec, Plan, Position
from launcher.schedules import Strengths, crop_scale_at, resolution_at, strengths_by_phase

CostRule = Callable[[int], float]

_SAMPLES_FOR_NORMS = 10_000


class PlanError(ValueError):
    """The job cannot be planned for this data set and number of workers."""


def build_plan(
    job: JobConfig,
    *,
    num_samples: int,
    world_size: int,
    start: Position = BEGINNING,
    flops: Mapping[int, float] | None = None,
) -> Plan:
    """Lay the job out, one row per epoch.

    `start` is where these workers take over: in the middle of an epoch its global batches are counted from there.
    `flops` maps every resolution of the job to the model's FLOPs for one image; without it an epoch's cost follows the
    area rule, (resolution / last resolution) squared.

    Raises PlanError with every phase that cannot be planned.
    """
    if problems := _problems(job, num_samples, world_size):
        raise PlanError(problems)
    cost_rule, window = "flops" if flops else "area", job.data.shuffle_window_samples
    bare = Plan((), job.phases, job.learning_rate, world_size, num_samples, job.seed, cost_rule, window)
    rows: list[EpochSpec] = []
    last_phase = job.phases[-1]
    last = resolution_at(last_phase.resolution, last_phase.epochs - 1, last_phase.epochs)
    cost = (lambda r: flops[r] / flops[last]) if flops else (lambda r: (r / last) ** 2)
    for index, strengths in enumerate(strengths_by_phase(job.augmentation, job.phases)):
        rows += _phase_rows(bare, index, len(rows), cost, strengths)
    rows = _with_norm_actions(rows, [phase.norm or job.norm for phase in job.phases])
    if start.samples_done:
        rows[start.epoch] = _taken_over(rows[start.epoch], start.samples_done, num_samples)
    return dataclasses.replace(bare, rows=tuple(rows))


def feasible_world(job: JobConfig, *, num_samples: int, available: int) -> int:
    """The most workers, `available` and the job's bounds permitting, that the job can be planned for.

    Raises PlanError if there are fewer than the job needs, or if none of these numbers divides its global batches.
    """
    least, most = job.run.least_workers, min(job.run.most_workers, available)
    if most < least:
        raise PlanError(f"run.workers: the job needs {least} workers, and there is room for {available}")
    for world_size in range(most, least - 1, -1):
        if not _problems(job, num_samples, world_size):
            return world_size
    bounds = f"run.workers: no number from {least} to {most} can be planned for\n" if least < most else ""
    raise PlanError(bounds + _problems(job, num_samples, most))


def resolutions(job: JobConfig) -> list[int]:
    """Every size that the job trains at, in order of first use."""
    sizes = (resolution_at(p.resolution, e, p.epochs) for p in job.phases for e in range(p.epochs))
    return list(dict.fromkeys(sizes))


def _problems(job: JobConfig, num_samples: int, world_size: int) -> str:
    """A line for each phase that so many workers cannot train."""
    problems = (_batch_problem(index, phase, num_samples, world_size) for index, phase in enumerate(job.phases))
    return "\n".join(filter(None, problems))


def _batch_problem(index: int, phase: Phase, num_samples: int, world_size: int) -> str | None:
    if phase.global_batch is not None and phase.global_batch % world_size:
        lower = max(1, phase.global_batch // world_size) * world_size
        return (
            f"phases[{index}].global_batch: {phase.global_batch} does not divide by {world_size} workers; "
            f"use {lower} or {lower + world_size}"
        )
    if phase.batch_per_worker == "auto":
        return (
            f"phases[{index}].batch_per_worker: auto is found by trying, where the job runs; "
            "give a number for a plan, such as `resolute batch-size JOB` finds there"
        )
    batch = phase.global_batch or (phase.batch_per_worker or 0) * world_size
    if batch > num_samples:
        return (
            f"phases[{index}]: a global batch of {batch} is more than the {num_samples} training samples; "
            f"use fewer workers or a smaller batch"
        )
    return None


def _default_name(phase: Phase) -> str:
    if isinstance(phase.resolution, int):
        return f"{phase.resolution} px"
    return f"{phase.resolution.start}-{phase.resolution.end} px"


def _phase_rows(bare: Plan, index: int, first_epoch: int, cost: CostRule, strengths: Strengths) -> list[EpochSpec]:
    phase = bare.phases[index]
    batch_per_worker, accumulate = _share(phase, bare.world_size)
    global_batch = batch_per_worker * accumulate * bare.world_size
    rows = []
    for epoch in range(first_epoch, first_epoch + phase.epochs):
        resolution = resolution_at(phase.resolution, epoch - first_epoch, phase.epochs)
        rows.append(
            EpochSpec(
                epoch=epoch,
                phase=index,
                phase_name=phase.name or _default_name(phase),
                resolution=resolution,
                batch_per_worker=batch_per_worker,
                accumulate=accumulate,
                global_batch=global_batch,
                steps=bare.num_samples // global_batch,
                dropped_samples=bare.num_samples % global_batch,
                lr_start=bare.learning_rate_in(index, epoch, 0, global_batch),
                lr_end=bare.learning_rate_in(index, epoch, 1, global_batch),
                relative_cost=cost(resolution),
                crop_scale=crop_scale_at(phase.crop_scale, resolution),
                crop_ratio=phase.crop_ratio,
                centre_crop=phase.centre_crop,
                trainable=phase.trainable,
                **vars(strengths),
            )
        )
    return rows


def _with_norm_actions(rows: list[EpochSpec], norms: list[Norm]) -> list[EpochSpec]:
    """The rows with what is done about norm statistics where images change; `norms` has a rule for each phase.

    Nothing is recalibrated where not all learns, as frozen norms would be estimated, too: that is owed until all does.
    """
    acted = rows[:1]
    thawed = 0
    owed = False
    for previous, row in pairwise(rows):
        batches = 0
        all_learns, changed = row.trainable == "all", not row.same_images(previous)
        if changed or (owed and all_learns):
            match norms[row.phase]:
                case RecalibrateNorm(num_batches=num_batches):
                    wanted = num_batches or math.ceil(_SAMPLES_FOR_NORMS / row.global_batch)
                    batches, thawed = min(wanted, row.steps) * all_learns, row.epoch
                case FreezeNorm(epochs=epochs):
                    thawed = row.epoch + epochs
                case _:
                    thawed = row.epoch
        owed = (owed or changed) and not all_learns
        acted.append(dataclasses.replace(row, recalibration_batches=batches, norm_frozen=row.epoch < thawed))
    return acted


def _share(phase: Phase, world_size: int) -> tuple[int, int]:
    """What a worker takes at once, and how often for one step: as seldom as the phase's limit permits."""
    if phase.global_batch is None:
        assert isinstance(phase.batch_per_worker, int)
        return phase.batch_per_worker, 1
    share = phase.global_batch // world_size
    limit = phase.batch_per_worker or share
    assert isinstance(limit, int), limit
    accumulate = next(times for times in range(1, share + 1) if share % times == 0 and share // times <= limit)
    return share // accumulate, accumulate


def _taken_over(row: EpochSpec, samples_done: int, num_samples: int) -> EpochSpec:
    """`row` with its global batches counted so that one of them begins at `samples_done`."""
    offset = samples_done % row.global_batch
    steps = (num_samples - offset) // row.global_batch
    dropped = num_samples - offset - steps * row.global_batch
    return dataclasses.replace(row, offset=offset, steps=steps, dropped_samples=dropped)

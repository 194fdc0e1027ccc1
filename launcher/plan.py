"""job + number of samples + world size -> the plan: a table with one row per epoch. Everything else walks it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from launcher.config import FreezeNorm, JobConfig, LearningRate, Norm, Phase, RecalibrateNorm, Trainable
from launcher.schedules import (
    Strengths,
    crop_scale_at,
    learning_rate_at,
    resolution_at,
    size_increases,
    strengths_by_phase,
)

CostRule = Callable[[int], float]

_SAMPLES_FOR_NORMS = 10_000
_INDECISIVE = ("phase_name", "relative_cost", "steps", "dropped_samples", "offset")
"""What a row only tells, or what follows from the rest and from where another number of workers stopped."""


class PlanError(ValueError):
    """The job cannot be planned for this data set and number of workers."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a run: samples of `epoch` already trained, over all workers.

    It depends neither on the world size nor on the batch. A finished epoch is written as the next one's start.
    """

    epoch: int
    samples_done: int = 0


BEGINNING = Position(0)


@dataclass(frozen=True)
class EpochSpec:
    """One epoch: a row of the plan."""

    epoch: int
    phase: int
    phase_name: str
    resolution: int
    batch_per_worker: int
    """Samples that a worker's model sees at once."""
    accumulate: int
    """Such batches a worker takes for one step."""
    global_batch: int
    steps: int
    dropped_samples: int
    lr_start: float
    lr_end: float
    """What the LR comes to at the epoch's end, before it jumps if it does."""
    relative_cost: float
    crop_scale: tuple[float, float]
    centre_crop: float | None = None
    """Share of the shorter side in a centre crop; None: random crops."""
    trainable: Trainable = "all"
    offset: int = 0
    """Samples before the first whole global batch: another global batch was used until then."""
    recalibration_batches: int = 0
    """Global batches from which norm statistics are estimated anew before the epoch, if it is come to by training."""
    norm_frozen: bool = False
    """Whether norm statistics stay as they are, and are normalised by, throughout the epoch."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    # As in Strengths:
    policy: Literal["rand_augment", "trivial_augment"] | None = None
    magnitude: float | None = None
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    dropout: float | None = None
    stochastic_depth: float | None = None

    @property
    def num_samples(self) -> int:
        """Samples trained in this epoch: whole global batches after the offset, the dropped tail not among them."""
        return self.offset + self.steps * self.global_batch

    def same_settings(self, other: EpochSpec) -> bool:
        """Whether workers can go from one epoch to the other without a transition."""
        settings = ("phase", "batch_per_worker", "accumulate", "global_batch")
        return self.same_images(other) and all(getattr(self, name) == getattr(other, name) for name in settings)

    def same_images(self, other: EpochSpec) -> bool:
        """Whether samples look alike in both epochs, so that a norm's statistics from one hold in the other."""
        looks = ("resolution", "crop_scale", "crop_ratio", "centre_crop")
        return all(getattr(self, name) == getattr(other, name) for name in looks)


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(EpochSpec) if f.default is not dataclasses.MISSING}
"""What a row has that does not say otherwise; left out of the fingerprint, so that a new column changes no old one."""


@dataclass(frozen=True)
class Totals:
    """Sums over the plan; costs are in epochs at the last resolution."""

    epochs: int
    steps: int
    samples: int
    dropped_samples: int
    cost: float
    cost_at_last_resolution: float
    relative_cost: float
    saving: float
    cost_rule: str


@dataclass(frozen=True)
class Plan:
    """The rows, and the rules that a place between two rows is answered from."""

    rows: tuple[EpochSpec, ...]
    phases: tuple[Phase, ...]
    learning_rate_rule: LearningRate
    world_size: int
    num_samples: int
    seed: int
    cost_rule: str = "area"
    shuffle_window_samples: int | None = None

    def learning_rate(self, position: Position) -> float:
        """The LR of the step that starts at `position`."""
        row = self.rows[position.epoch]
        return self._learning_rate(row.phase, row.epoch, position.samples_done / row.num_samples, row.global_batch)

    def _learning_rate(self, phase: int, epoch: int, share: float, global_batch: int) -> float:
        """At a `share`, 0..1, of `epoch`; at 1 what it comes to in the end."""
        return learning_rate_at(
            self.learning_rate_rule,
            self.phases[phase],
            epoch=epoch + share,
            phase_start=sum(p.epochs for p in self.phases[:phase]),
            num_epochs=sum(p.epochs for p in self.phases),
            global_batch=global_batch,
            size_increases=self._size_increases[epoch],
            arriving=share == 1,
        )

    @cached_property
    def _size_increases(self) -> tuple[int, ...]:
        return size_increases(self.phases)

    @property
    def end(self) -> Position:
        return Position(len(self.rows))

    def after(self, position: Position, samples: int) -> Position:
        """The position `samples` further on, within one epoch."""
        done = position.samples_done + samples
        assert done <= self.rows[position.epoch].num_samples, (position, samples)
        if done == self.rows[position.epoch].num_samples:
            return Position(position.epoch + 1)
        return Position(position.epoch, done)

    def phase_boundaries(self) -> tuple[Position, ...]:
        """The positions at which a phase ends, the run's end among them."""
        ends = [
            row.epoch + 1
            for row in self.rows
            if row.epoch + 1 == len(self.rows) or self.rows[row.epoch + 1].phase != row.phase
        ]
        return tuple(Position(epoch) for epoch in ends)

    @property
    def totals(self) -> Totals:
        cost = sum(row.relative_cost for row in self.rows)
        return Totals(
            epochs=len(self.rows),
            steps=sum(row.steps for row in self.rows),
            samples=sum(row.num_samples for row in self.rows),
            dropped_samples=sum(row.dropped_samples for row in self.rows),
            cost=cost,
            cost_at_last_resolution=float(len(self.rows)),
            relative_cost=cost / len(self.rows),
            saving=1 - cost / len(self.rows),
            cost_rule=self.cost_rule,
        )

    def to_json(self) -> dict[str, Any]:
        """The machine-readable plan, as `resolute plan --format json` prints it."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "totals": dataclasses.asdict(self.totals),
            "world_size": self.world_size,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "shuffle_window_samples": self.shuffle_window_samples,
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the weights: rows but for cost and name, LR rules, seed, samples, world size."""
        between_rows = {"lr_scale", "warmup_epochs", "warmup_start_factor"}
        decisive = {
            "rows": [
                {
                    name: value
                    for name, value in dataclasses.asdict(row).items()
                    if name not in _INDECISIVE and (name not in _DEFAULTS or value != _DEFAULTS[name])
                }
                for row in self.rows
            ],
            "phases": [phase.model_dump(mode="json", include=between_rows) for phase in self.phases],
            "learning_rate": _without_later_fields(self.learning_rate_rule.model_dump(mode="json")),
            "world_size": self.world_size,
            "num_samples": self.num_samples,
            "seed": self.seed,
        }
        if self.shuffle_window_samples is not None:
            decisive["shuffle_window_samples"] = self.shuffle_window_samples
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


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


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What decides the weights and differs between two plans in JSON form: a line each, one for rows that differ alike.

    Empty also where only the LR within an epoch differs, which rows do not show.
    """
    lines = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in ("world_size", "num_samples", "seed", "shuffle_window_samples")
        if old.get(key) != new.get(key)
    ]
    old_rows, new_rows = old["rows"], new["rows"]
    if len(old_rows) != len(new_rows):
        lines.append(f"epochs: {len(old_rows)} -> {len(new_rows)}")
    previous: set[str] = set()
    for old_row, new_row in zip(old_rows, new_rows, strict=False):
        old_row = {**_DEFAULTS, **old_row}
        changed = {k for k in new_row if k not in _INDECISIVE and _plain(old_row.get(k)) != _plain(new_row[k])}
        if changed - previous:
            what = ", ".join(f"{k} {old_row.get(k)} -> {new_row[k]}" for k in sorted(changed))
            lines.append(f"from epoch {new_row['epoch']}: {what}")
        previous = changed
    return lines


_LATER_FIELDS = {"restart": "never", "at_size_increase": 1.0, "begin_epoch": 0.0}
"""Of the LR's rules, with the value that stands for how it was before they were there."""


def _without_later_fields(rule: dict[str, Any]) -> dict[str, Any]:
    """`rule`, and its shape, without fields that were added since and change nothing: as the fingerprint was taken."""
    kept = {name: value for name, value in rule.items() if name not in _LATER_FIELDS or value != _LATER_FIELDS[name]}
    return {name: _without_later_fields(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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
                lr_start=bare._learning_rate(index, epoch, 0, global_batch),
                lr_end=bare._learning_rate(index, epoch, 1, global_batch),
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

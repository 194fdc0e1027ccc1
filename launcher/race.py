"""A job against its twins of one size: the twins, and what a race of them comes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from launcher.config import (
    Constant,
    Cosine,
    Exponential,
    JobConfig,
    LearningRate,
    Phase,
    PiecewiseLinear,
    Polynomial,
    Shape,
    Step,
)
from launcher.plan import Plan
from launcher.schedules import resolution_at

_STEP = 0.05
"""Between the accuracies that times are told for."""


def fixed_twin(job: JobConfig, *, world_size: int) -> JobConfig:
    """The job with its last size in every phase, and nothing else that a step would notice.

    Global batches and learning rates stay: a worker takes no more at once than in the last phase, and accumulates.
    """
    last = job.phases[-1]
    size = resolution_at(last.resolution, last.epochs - 1, last.epochs)
    at_once = _at_once(last, world_size)
    phases, before, drops = [], None, 0
    for phase in job.phases:
        sizes = [resolution_at(phase.resolution, epoch, phase.epochs) for epoch in range(phase.epochs)]
        drops += before is not None and sizes[0] > before
        changes = {
            "resolution": size,
            "batch_per_worker": min(_at_once(phase, world_size), at_once),
            "global_batch": phase.global_batch or _at_once(phase, world_size) * world_size,
            # The drops that come with larger sizes, for the twin has none.
            "lr_scale": phase.lr_scale * job.learning_rate.at_size_increase**drops,
        }
        phases.append(phase.model_copy(update=changes))
        drops += sum(later > earlier for earlier, later in pairwise(sizes))
        before = sizes[-1]
    learning_rate = job.learning_rate.model_copy(update={"at_size_increase": 1.0})
    return job.model_copy(update={"phases": tuple(phases), "learning_rate": learning_rate})


def _at_once(phase: Phase, world_size: int) -> int:
    if phase.batch_per_worker is None:
        assert phase.global_batch is not None
        return max(1, phase.global_batch // world_size)
    assert isinstance(phase.batch_per_worker, int), "settle auto first"
    return phase.batch_per_worker


def squeezed(job: JobConfig, *, epochs: int) -> JobConfig:
    """The job in fewer epochs: phases, learning rate and warm-ups keep their shares of it. Phases may fall away."""
    share = epochs / job.num_epochs
    phases, done, ends = [], 0, 0
    for phase in job.phases:
        done += phase.epochs
        length = round(done * share) - ends
        ends += length
        if length:
            warmup = min(phase.warmup_epochs * share, length)
            phases.append(phase.model_copy(update={"epochs": length, "warmup_epochs": warmup}))
    shape = _squeezed_shape(job.learning_rate.shape, share)
    learning_rate: LearningRate = job.learning_rate.model_copy(update={"shape": shape})
    return job.model_copy(update={"phases": tuple(phases), "learning_rate": learning_rate})


def _squeezed_shape(shape: Shape, share: float) -> Shape:
    changes: dict[str, Any]
    match shape:
        case Constant():
            changes = {}
        case PiecewiseLinear():
            changes = {"points": tuple((epoch * share, factor) for epoch, factor in shape.points)}
        case Step():
            changes = {"milestones_epochs": tuple(epoch * share for epoch in shape.milestones_epochs)}
        case Cosine() | Polynomial():
            changes = {"begin_epoch": shape.begin_epoch * share}
        case Exponential():
            changes = {"every_epochs": shape.every_epochs * share, "hold_epochs": shape.hold_epochs * share}
    squeezed_shape: Shape = shape.model_copy(update=changes)
    return squeezed_shape


@dataclass(frozen=True)
class Point:
    """Where a run stood at the end of an epoch that was evaluated."""

    seconds: float
    """Of training and transitions since its start; evaluations, checkpoints and bringing up workers are left out."""
    cost: float
    """In epochs at the last size."""
    top1: float


@dataclass(frozen=True)
class Jump:
    """The accuracy around a change of size: at the old one, at the new one, and an epoch later."""

    epoch: int
    resolution_before: int
    resolution_after: int
    norm: str
    before: float | None
    after: float | None
    epoch_later: float | None


@dataclass(frozen=True)
class Course:
    """How a leg of the race went."""

    name: str
    seed: int
    points: tuple[Point, ...]
    jumps: tuple[Jump, ...] = ()

    def time_to(self, top1: float) -> float | None:
        """Seconds until that accuracy was first measured; None if it never was."""
        return next((point.seconds for point in self.points if point.top1 >= top1), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def course(events: Iterable[Mapping[str, Any]], plan: Plan, *, name: str, seed: int) -> Course:
    """Read a finished run's events; an epoch that was trained again counts as trained last."""
    trained: dict[int, float] = {}
    judged: dict[int, float] = {}
    transitions: dict[int, Mapping[str, Any]] = {}
    for event in events:
        match event["event"]:
            case "epoch_trained":
                trained[event["epoch"]] = event["seconds"]
            case "evaluated" if event["moment"] == "epoch_end":
                judged[event["epoch"]] = event["top1"]
            case "transition_made":
                transitions[event["epoch"]] = event
    points, seconds, cost = [], 0.0, 0.0
    for row in plan.rows:
        changed = transitions.get(row.epoch)
        seconds += trained[row.epoch] + (changed["seconds"] + changed["norm_seconds"] if changed else 0.0)
        cost += row.relative_cost
        if row.epoch in judged:
            points.append(Point(seconds, cost, judged[row.epoch]))
    jumps = [
        Jump(
            epoch=epoch,
            resolution_before=made["resolution_before"],
            resolution_after=made["resolution_after"],
            norm=made["norm"],
            before=made["top1_before"],
            after=made["top1_after"],
            epoch_later=judged.get(epoch),
        )
        for epoch, made in sorted(transitions.items())
        if made["resolution_before"] != made["resolution_after"]
    ]
    return Course(name, seed, tuple(points), tuple(jumps))


@dataclass(frozen=True)
class Spread:
    """Of one number over several seeds."""

    mean: float
    deviation: float | None
    """Of a sample; None for a single one."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(mean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Standing:
    """What a contestant came to, over its seeds."""

    name: str
    seeds: int
    top1: Spread
    seconds: Spread
    cost: float


def standings(courses: Sequence[Course]) -> list[Standing]:
    """In the order of the first appearance."""
    return [
        Standing(
            name=name,
            seeds=len(legs),
            top1=Spread.of([leg.points[-1].top1 for leg in legs]),
            seconds=Spread.of([leg.points[-1].seconds for leg in legs]),
            cost=legs[0].points[-1].cost,
        )
        for name, legs in by_name(courses).items()
    ]


def by_name(courses: Sequence[Course]) -> dict[str, list[Course]]:
    """The legs of each contestant."""
    names = dict.fromkeys(leg.name for leg in courses)
    return {name: [leg for leg in courses if leg.name == name] for name in names}


@dataclass(frozen=True)
class TimeTo:
    """Seconds until an accuracy, by contestant: the mean over seeds; None where one of them did not get there."""

    top1: float
    seconds: Mapping[str, float | None]


def times_to(courses: Sequence[Course]) -> list[TimeTo]:
    """For every step of accuracy that somebody reached with all seeds, from the last that nobody began below."""
    told: list[TimeTo] = []
    best = max((point.top1 for leg in courses for point in leg.points), default=0.0)
    least = min((leg.points[0].top1 for leg in courses if leg.points), default=0.0)
    for number in range(max(1, _steps_up_to(least)), _steps_up_to(best) + 1):
        top1 = round(number * _STEP, 2)
        seconds = {name: _mean_time(legs, top1) for name, legs in by_name(courses).items()}
        if any(value is not None for value in seconds.values()):
            told.append(TimeTo(top1, seconds))
    return told


def _steps_up_to(top1: float) -> int:
    return int(top1 / _STEP + 1e-9)


def _mean_time(legs: Sequence[Course], top1: float) -> float | None:
    times = [leg.time_to(top1) for leg in legs]
    reached = [time for time in times if time is not None]
    return mean(reached) if len(reached) == len(times) else None


def mean_jumps(legs: Sequence[Course]) -> list[Jump]:
    """Each change of size, over the seeds of one contestant."""
    return [
        Jump(
            epoch=jumps[0].epoch,
            resolution_before=jumps[0].resolution_before,
            resolution_after=jumps[0].resolution_after,
            norm=jumps[0].norm,
            before=_mean([jump.before for jump in jumps]),
            after=_mean([jump.after for jump in jumps]),
            epoch_later=_mean([jump.epoch_later for jump in jumps]),
        )
        for jumps in zip(*(leg.jumps for leg in legs), strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None

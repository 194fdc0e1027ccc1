"""The twin of a race, and what a race comes to."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.job_file import load_job
from launcher.plan import Plan, Position
from launcher.planning import build_plan
from launcher.race import Course, Point, Spread, course, fixed_twin, mean_jumps, squeezed, standings, times_to
from tests.unit.sample_jobs import make_job, make_plan

CLASSIC = (
    {"epochs": 30, "resolution": 128, "batch_per_worker": 512},
    {"epochs": 30, "resolution": 192, "batch_per_worker": 256, "warmup_epochs": 1},
    {"epochs": 30, "resolution": 224, "batch_per_worker": 128, "warmup_epochs": 1},
)


def rates(plan: Plan) -> list[float]:
    return [plan.learning_rate(Position(row.epoch, row.global_batch)) for row in plan.rows]


def test_the_twin_differs_in_size_alone() -> None:
    job = make_job(*CLASSIC, learning_rate={"base": 0.1, "shape": {"kind": "cosine"}})
    ours, theirs = (
        build_plan(which, num_samples=10_000, world_size=2) for which in (job, fixed_twin(job, world_size=2))
    )
    assert {row.resolution for row in theirs.rows} == {224}
    assert [row.global_batch for row in theirs.rows] == [row.global_batch for row in ours.rows]
    assert rates(theirs) == rates(ours)
    # No more at once than fits at the last size: the first phase accumulates.
    assert [(row.batch_per_worker, row.accumulate) for row in theirs.rows[::30]] == [(128, 4), (128, 2), (128, 1)]


@pytest.mark.parametrize("name", ["imagenet-rn50-16", "cifar10-cpu"])
def test_a_recipes_twin_has_its_global_batches_and_rates_at_every_epoch(name: str) -> None:
    job = load_job(name)
    assert job.data.num_samples is not None
    plans = [
        build_plan(which, num_samples=job.data.num_samples, world_size=2)
        for which in (job, fixed_twin(job, world_size=2))
    ]
    assert rates(plans[1]) == pytest.approx(rates(plans[0]))
    assert [row.global_batch for row in plans[1].rows] == [row.global_batch for row in plans[0].rows]
    assert {row.resolution for row in plans[1].rows} == {plans[0].rows[-1].resolution}


def test_the_twin_drops_its_rate_where_the_job_does_with_its_size() -> None:
    rule = {"base": 0.1, "at_size_increase": 0.5}
    job = make_job({"epochs": 2}, {"epochs": 2, "resolution": 24}, {"resolution": 32}, learning_rate=rule)
    plans = [build_plan(which, num_samples=100, world_size=1) for which in (job, fixed_twin(job, world_size=1))]
    assert rates(plans[1]) == pytest.approx(rates(plans[0]))
    assert rates(plans[0])[0] == pytest.approx(4 * rates(plans[0])[-1])


def test_a_squeezed_job_keeps_the_course_of_its_rate() -> None:
    points = [[0, 0.1], [20, 1], [90, 0]]
    job = make_job(*CLASSIC, learning_rate={"base": 0.1, "shape": {"kind": "piecewise_linear", "points": points}})
    short = squeezed(job, epochs=45)
    assert [phase.epochs for phase in short.phases] == [15, 15, 15]
    assert [phase.warmup_epochs for phase in short.phases] == [0, 0.5, 0.5]
    long_plan, short_plan = (build_plan(which, num_samples=10_000, world_size=1) for which in (job, short))
    for epoch in range(45):
        assert short_plan.learning_rate(Position(epoch)) == pytest.approx(long_plan.learning_rate(Position(2 * epoch)))


@pytest.mark.parametrize(
    ("shape", "squeezed_to"),
    [
        ({"kind": "step", "milestones_epochs": [30, 60]}, {"milestones_epochs": (15, 30)}),
        ({"kind": "cosine", "begin_epoch": 10}, {"begin_epoch": 5}),
        ({"kind": "exponential", "factor": 0.97, "every_epochs": 2.4, "hold_epochs": 5}, {"every_epochs": 1.2}),
        ({"kind": "constant"}, {}),
    ],
)
def test_every_shape_is_squeezed(shape: dict[str, Any], squeezed_to: dict[str, Any]) -> None:
    short = squeezed(make_job(*CLASSIC, learning_rate={"base": 0.1, "shape": shape}), epochs=45)
    assert short.learning_rate.shape.model_dump() | squeezed_to == short.learning_rate.shape.model_dump()


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 50, 89, 90])
def test_a_squeezed_job_has_as_many_epochs_as_asked_for(epochs: int) -> None:
    assert squeezed(make_job(*CLASSIC), epochs=epochs).num_epochs == epochs


def trained(epoch: int, seconds: float) -> dict[str, Any]:
    return {"event": "epoch_trained", "epoch": epoch, "seconds": seconds}


def judged(epoch: int, top1: float, moment: str = "epoch_end") -> dict[str, Any]:
    return {"event": "evaluated", "epoch": epoch, "top1": top1, "moment": moment}


def changed(epoch: int, before: int, after: int) -> dict[str, Any]:
    return {
        "event": "transition_made",
        "epoch": epoch,
        "resolution_before": before,
        "resolution_after": after,
        "norm": "recalibrated",
        "seconds": 0.5,
        "norm_seconds": 0.25,
        "top1_before": 0.4,
        "top1_after": 0.3,
    }


def test_a_course_counts_training_and_transitions_and_each_epoch_once() -> None:
    plan = make_plan({"epochs": 2, "resolution": 16}, {"epochs": 1, "resolution": 32})
    events = [
        trained(0, 1),
        judged(0, 0.2),
        trained(1, 99),  # and killed before it was saved
        trained(1, 2),
        judged(1, 0.4),
        changed(2, 16, 32),
        judged(2, 0.3, "after_transition"),
        trained(2, 4),
        judged(2, 0.6),
    ]
    leg = course(events, plan, name="progressive", seed=0)
    assert leg.points == (Point(1, 0.25, 0.2), Point(3, 0.5, 0.4), Point(7.75, 1.5, 0.6))
    (jump,) = leg.jumps
    assert (jump.resolution_before, jump.before, jump.after, jump.epoch_later) == (16, 0.4, 0.3, 0.6)
    assert leg.time_to(0.5) == 7.75
    assert leg.time_to(0.61) is None


def leg(name: str, *points: tuple[float, float], seed: int = 0) -> Course:
    return Course(name, seed, tuple(Point(seconds, seconds, top1) for seconds, top1 in points))


def test_times_to_an_accuracy_are_means_over_seeds_that_all_reached_it() -> None:
    legs = [
        leg("a", (1, 0.05), (2, 0.1)),
        leg("a", (3, 0.12), (4, 0.12), seed=1),
        leg("b", (9, 0.17)),
        leg("b", (5, 0.11), seed=1),
    ]
    told = {time.top1: time.seconds for time in times_to(legs)}
    assert told == {0.05: {"a": 2, "b": 7}, 0.1: {"a": 2.5, "b": 7}}


def test_times_are_told_from_the_last_accuracy_that_all_had_at_once() -> None:
    legs = [leg("a", (1, 0.33), (2, 0.5)), leg("b", (3, 0.45), (5, 0.47))]
    assert [(time.top1, time.seconds) for time in times_to(legs)] == [
        (0.3, {"a": 1, "b": 3}),
        (0.35, {"a": 2, "b": 3}),
        (0.4, {"a": 2, "b": 3}),
        (0.45, {"a": 2, "b": 3}),
        (0.5, {"a": 2, "b": None}),
    ]


def test_a_race_that_nobody_finished_comes_to_nothing() -> None:
    assert (standings([]), times_to([]), mean_jumps([])) == ([], [], [])


def test_standings_tell_the_spread_over_seeds() -> None:
    first, second = standings([leg("a", (1, 0.5)), leg("b", (2, 0.5)), leg("a", (3, 0.7), seed=1)])
    assert (first.name, first.seeds, first.seconds.mean) == ("a", 2, 2)
    assert first.top1.mean == pytest.approx(0.6)
    assert first.top1.deviation == pytest.approx(0.1414, abs=1e-4)
    assert second.top1 == Spread(0.5, None)


def test_changes_of_size_are_told_as_means_over_seeds() -> None:
    plan = make_plan({"resolution": 16}, {"resolution": 32})
    legs = [
        course([trained(0, 1), changed(1, 16, 32), trained(1, 1), judged(1, top1)], plan, name="a", seed=seed)
        for seed, top1 in enumerate((0.5, 0.7))
    ]
    (jump,) = mean_jumps(legs)
    assert (jump.before, jump.after) == (0.4, 0.3)
    assert jump.epoch_later == pytest.approx(0.6)

"""The plan: a job, a data set and a number of workers laid out row by row."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.plan import Plan, Position, differences
from launcher.planning import PlanError, build_plan, feasible_world, resolutions
from tests.unit.sample_jobs import make_job, make_plan


def test_phases_follow_each_other_with_their_own_settings() -> None:
    plan = make_plan(
        {"epochs": 2, "resolution": 16, "global_batch": 48, "name": "coarse"},
        {"epochs": 1, "resolution": 32, "batch_per_worker": 8, "crop_scale": [0.5, 0.75]},
        world_size=4,
    )
    rows = [(r.epoch, r.phase, r.phase_name, r.resolution, r.batch_per_worker, r.global_batch) for r in plan.rows]
    assert rows == [(0, 0, "coarse", 16, 12, 48), (1, 0, "coarse", 16, 12, 48), (2, 1, "32 px", 32, 8, 32)]
    assert [row.crop_scale for row in plan.rows] == [(0.08, 1.0), (0.08, 1.0), (0.5, 0.75)]
    samples = [(row.steps, row.dropped_samples, row.num_samples) for row in plan.rows]
    assert samples == [(2, 4, 96), (2, 4, 96), (3, 4, 96)]


def test_a_ramp_names_its_phase_and_every_size_is_listed_once() -> None:
    job = make_job({"epochs": 2, "resolution": {"start": 16, "end": 32, "multiple_of": 8}}, {"resolution": 24})
    assert build_plan(job, num_samples=100, world_size=1).rows[0].phase_name == "16-32 px"
    assert resolutions(job) == [16, 24]


phases = st.lists(
    st.fixed_dictionaries(
        {
            "epochs": st.integers(1, 4),
            "resolution": st.sampled_from([16, 24, 48, {"start": 16, "end": 64, "multiple_of": 8}]),
            "global_batch": st.sampled_from([8, 24, 96]),
            "lr_scale": st.sampled_from([0.5, 1]),
            "warmup_epochs": st.sampled_from([0, 0.25, 1]),
        }
    ),
    min_size=1,
    max_size=3,
)


@given(phases, st.integers(96, 500))
def test_every_row_accounts_for_every_sample_and_totals_are_the_sums_of_rows(some: Any, num_samples: int) -> None:
    plan = make_plan(*some, num_samples=num_samples)
    for row in plan.rows:
        assert row.num_samples + row.dropped_samples == num_samples
        assert 0 <= row.dropped_samples < row.global_batch
        assert row.steps > 0
        assert row.relative_cost == (row.resolution / plan.rows[-1].resolution) ** 2
    totals = plan.totals
    assert totals.epochs == len(plan.rows) == totals.cost_at_last_resolution
    assert totals.samples + totals.dropped_samples == num_samples * len(plan.rows)
    assert totals.steps == sum(row.steps for row in plan.rows)
    assert totals.cost == pytest.approx(sum(row.relative_cost for row in plan.rows))
    assert totals.relative_cost == pytest.approx(totals.cost / len(plan.rows))
    assert totals.saving == pytest.approx(1 - totals.relative_cost)


@given(phases, st.sampled_from([2, 4, 8]))
def test_the_learning_rate_depends_on_the_global_batch_alone(some: Any, world_size: int) -> None:
    alone, shared = (make_plan(*some, world_size=workers) for workers in (1, world_size))
    for row, split in zip(alone.rows, shared.rows, strict=True):
        assert split.batch_per_worker * world_size == split.global_batch == row.global_batch
        assert (split.lr_start, split.lr_end) == (row.lr_start, row.lr_end)
        middle = Position(row.epoch, row.steps // 2 * row.global_batch)
        assert shared.learning_rate(middle) == alone.learning_rate(middle)


def test_a_batch_per_worker_scales_the_learning_rate_with_the_workers() -> None:
    one, four = (make_plan({"batch_per_worker": 8, "warmup_epochs": 1}, world_size=workers) for workers in (1, 4))
    assert four.rows[0].lr_end == pytest.approx(4 * one.rows[0].lr_end)
    assert four.rows[0].lr_start == pytest.approx(4 * one.rows[0].lr_start)


def test_without_scaling_the_learning_rate_ignores_the_batch() -> None:
    plan = make_plan({"batch_per_worker": 8}, world_size=4, learning_rate={"base": 0.3, "scaling": "none"})
    assert plan.rows[0].lr_start == 0.3


@given(phases)
def test_a_position_and_the_row_it_starts_agree_on_the_learning_rate(some: Any) -> None:
    plan = make_plan(*some, learning_rate={"base": 1, "shape": {"kind": "cosine"}})
    for row in plan.rows:
        assert plan.learning_rate(Position(row.epoch)) == row.lr_start
        inside = [plan.learning_rate(Position(row.epoch, step * row.global_batch)) for step in range(row.steps)]
        assert min(inside) > 0


def test_an_epoch_ends_at_the_learning_rate_that_it_comes_to_not_at_the_next_ones() -> None:
    step = {"kind": "step", "milestones_epochs": [1, 2.5]}
    plan = make_plan({"epochs": 3}, learning_rate={"base": 1, "base_batch": 8, "shape": step})
    rates = [(row.lr_start, row.lr_end) for row in plan.rows]
    assert rates == [(1, 1), (0.1, 0.1), (0.1, pytest.approx(0.01))]


def test_the_learning_rate_drops_at_every_larger_size_and_starts_anew_in_every_phase_where_that_is_wanted() -> None:
    rule = {"base": 1, "base_batch": 8, "at_size_increase": 0.5, "restart": "per_phase"}
    ramp = {"start": 16, "end": 48, "multiple_of": 16}
    plan = make_plan(
        {"epochs": 2, "resolution": ramp},
        {"epochs": 2, "resolution": 16},
        learning_rate={**rule, "shape": {"kind": "polynomial"}},
    )
    assert [row.resolution for row in plan.rows] == [16, 32, 16, 16]
    assert [(row.lr_start, row.lr_end) for row in plan.rows] == [(1, 0.5), (0.25, 0), (0.5, 0.25), (0.25, 0)]


def test_each_phase_warms_up_anew_to_its_own_scale() -> None:
    plan = make_plan(
        {"epochs": 2, "global_batch": 50, "warmup_epochs": 1},
        {"epochs": 2, "global_batch": 50, "warmup_epochs": 0.5, "lr_scale": 0.5, "warmup_start_factor": 0},
        learning_rate={"base": 1, "base_batch": 50},
    )
    assert [(row.lr_start, row.lr_end) for row in plan.rows] == [(0.1, 1), (1, 1), (0, 0.5), (0.5, 0.5)]
    assert plan.learning_rate(Position(0, 50)) == pytest.approx(0.55)
    assert plan.learning_rate(Position(2, 50)) == 0.5


def test_cost_follows_the_measured_flops_where_they_are_given() -> None:
    job = make_job({"resolution": 16}, {"resolution": 32})
    plan = build_plan(job, num_samples=100, world_size=1, flops={16: 3e9, 32: 10e9})
    assert [row.relative_cost for row in plan.rows] == [0.3, 1]
    assert plan.totals.cost_rule == "flops"
    assert plan.totals.saving == pytest.approx(0.35)


def test_growing_images_save_and_shrinking_images_cost() -> None:
    assert make_plan({"resolution": 16}, {"resolution": 32}).totals.saving == pytest.approx(0.375)
    assert make_plan({"resolution": 32}, {"resolution": 16}).totals.saving == pytest.approx(-1.5)


@pytest.mark.parametrize(("batch", "workers", "fix"), [(10, 4, "8 or 12"), (4, 8, "8 or 16"), (7, 2, "6 or 8")])
def test_a_global_batch_that_does_not_divide_is_a_sentence_with_batches_that_do(
    batch: int, workers: int, fix: str
) -> None:
    with pytest.raises(PlanError) as caught:
        make_plan({}, {"global_batch": batch}, world_size=workers)
    where = "phases[1].global_batch"
    assert str(caught.value) == f"{where}: {batch} does not divide by {workers} workers; use {fix}"


def test_every_phase_that_cannot_be_planned_is_named() -> None:
    with pytest.raises(PlanError) as caught:
        make_plan({"global_batch": 128}, {}, {"batch_per_worker": 64}, {"global_batch": 9}, world_size=2)
    first, second, third = str(caught.value).splitlines()
    too_large = "a global batch of 128 is more than the 100 training samples; use fewer workers or a smaller batch"
    assert (first, second) == (f"phases[0]: {too_large}", f"phases[2]: {too_large}")
    assert third.startswith("phases[3].global_batch: 9 does not divide")


def test_one_global_batch_may_be_the_whole_data_set() -> None:
    plan = make_plan({"global_batch": 100})
    assert (plan.rows[0].steps, plan.rows[0].dropped_samples) == (1, 0)


def test_positions_walk_to_the_next_epochs_start() -> None:
    plan = make_plan({"epochs": 2, "global_batch": 48})
    assert plan.after(Position(0), 48) == Position(0, 48)
    assert plan.after(Position(0, 48), 48) == Position(1)
    assert plan.after(Position(1), 96) == plan.end == Position(2)
    with pytest.raises(AssertionError):
        plan.after(Position(0, 48), 96)


def test_positions_are_ordered_as_a_run_passes_them() -> None:
    walk = [Position(0), Position(0, 8), Position(0, 16), Position(1), Position(1, 8), Position(10)]
    assert sorted(walk, reverse=True)[::-1] == walk


def test_phase_boundaries_are_where_phases_end_not_where_a_ramp_changes_size() -> None:
    ramp = {"epochs": 4, "resolution": {"start": 16, "end": 32, "multiple_of": 8}}
    plan = make_plan({"epochs": 2}, {"epochs": 1}, ramp)
    assert plan.phase_boundaries() == (Position(2), Position(3), Position(7))


def test_crops_follow_the_size_of_each_epoch() -> None:
    ramp = {"start": 16, "end": 32, "multiple_of": 8}
    crop = {"scale": [0.5, 1], "at": 32}
    rows = make_plan({"epochs": 2, "resolution": ramp, "crop_scale": crop, "crop_ratio": [0.5, 2]}).rows
    assert not rows[0].same_settings(rows[1])
    assert [(row.resolution, row.crop_scale) for row in rows] == [(16, (0.125, 0.25)), (24, (0.28125, 0.5625))]
    assert rows[0].crop_ratio == (0.5, 2)


def test_strengths_of_augmentation_are_columns_that_decide() -> None:
    phases: list[dict[str, Any]] = [{"epochs": 2}, {"resolution": 24}]
    growing = {"policy": {"kind": "rand_augment", "magnitude": {"start": 5, "end": 10}}, "mixup": 0.2}
    plan = make_plan(*phases, augmentation=growing)
    assert [(row.policy, row.magnitude, row.mixup_alpha) for row in plan.rows] == [
        ("rand_augment", 5, 0.2),
        ("rand_augment", 5, 0.2),
        ("rand_augment", 10, 0.2),
    ]
    assert plan.fingerprint != make_plan(*phases).fingerprint
    lines = differences(as_json(make_plan(*phases)), as_json(plan))
    assert lines[0].startswith(
        "from epoch 0: magnitude None -> 5.0, mixup_alpha 0.0 -> 0.2, policy None -> rand_augment"
    )


def test_settings_are_the_same_only_within_a_phase_at_one_size() -> None:
    ramp = {"epochs": 3, "resolution": {"start": 16, "end": 32, "multiple_of": 16}}
    rows = make_plan({"epochs": 2}, ramp).rows
    assert [row.resolution for row in rows] == [16, 16, 16, 16, 32]
    same = [earlier.same_settings(later) for earlier, later in pairwise(rows)]
    assert same == [True, False, True, False]


RECALIBRATE: dict[str, Any] = {"kind": "recalibrate"}


@pytest.mark.parametrize(
    ("norm", "in_ramp", "batches", "frozen"),
    [
        ({"kind": "none"}, None, [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]),
        (RECALIBRATE | {"num_batches": 5}, None, [0, 0, 0, 5, 0, 5], [0, 0, 0, 0, 0, 0]),
        (RECALIBRATE, None, [0, 0, 0, 12, 0, 12], [0, 0, 0, 0, 0, 0]),
        ({"kind": "freeze"}, None, [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1]),
        ({"kind": "freeze", "epochs": 2}, None, [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]),
        ({"kind": "freeze", "epochs": 9}, RECALIBRATE, [0, 0, 0, 12, 0, 0], [0, 0, 0, 0, 0, 1]),
        (RECALIBRATE, {"kind": "freeze", "epochs": 9}, [0, 0, 0, 0, 0, 12], [0, 0, 0, 1, 1, 0]),
    ],
    ids=str,
)
def test_norm_statistics_are_seen_to_where_images_change(
    norm: dict[str, Any], in_ramp: dict[str, Any] | None, batches: list[int], frozen: list[int]
) -> None:
    ramp = {"epochs": 4, "resolution": {"start": 16, "end": 32, "multiple_of": 16}, "norm": in_ramp}
    rows = make_plan({"epochs": 1}, ramp, {"resolution": 32, "crop_scale": [0.5, 1]}, norm=norm).rows
    assert [row.resolution for row in rows] == [16, 16, 16, 32, 32, 32]
    assert [row.recalibration_batches for row in rows] == batches
    assert [row.norm_frozen for row in rows] == frozen


@pytest.mark.parametrize(
    ("trainable", "batches"),
    [
        (["all", "classifier_and_last_norm", "classifier_and_last_norm"], [0, 0, 0]),
        (["all", 2, "all"], [0, 0, 12]),
        (["classifier", "classifier", "all"], [0, 0, 12]),
        (["all", "all", "classifier"], [0, 12, 0]),
        (["classifier", "all", "all"], [0, 12, 0]),
    ],
    ids=str,
)
def test_frozen_norms_keep_their_statistics_until_all_learns_again(trainable: list[Any], batches: list[int]) -> None:
    sizes = (16, 24, 24)
    phases = [{"resolution": size, "trainable": part} for size, part in zip(sizes, trainable, strict=True)]
    rows = make_plan(*phases, norm=RECALIBRATE).rows
    assert [row.recalibration_batches for row in rows] == batches


def test_norms_are_frozen_for_an_epoch_where_images_change_and_where_all_learns_again() -> None:
    new: dict[str, Any] = {"resolution": 24}
    rows = make_plan({}, {**new, "epochs": 2, "trainable": 2}, {**new, "epochs": 2}, norm={"kind": "freeze"}).rows
    assert [row.norm_frozen for row in rows] == [False, True, False, True, False]


@pytest.mark.parametrize(("global_batch", "batches"), [(256, 40), (4096, 3), (10_000, 1), (32, 313)])
def test_norms_are_estimated_from_ten_thousand_samples_unless_the_job_says_otherwise(
    global_batch: int, batches: int
) -> None:
    rows = make_plan(
        {"global_batch": global_batch},
        {"global_batch": global_batch, "resolution": 32},
        norm=RECALIBRATE,
        num_samples=100_000,
    ).rows
    assert [row.recalibration_batches for row in rows] == [0, batches]


def test_a_plan_that_does_not_touch_norms_has_the_fingerprint_it_had_before_they_could_be() -> None:
    same = make_plan({"epochs": 2}, norm=RECALIBRATE)
    assert same.fingerprint == make_plan({"epochs": 2}).fingerprint
    phases: list[dict[str, Any]] = [{}, {"resolution": 24}]
    prints = {make_plan(*phases, norm={"kind": kind}).fingerprint for kind in ("none", "recalibrate", "freeze")}
    assert len(prints) == 3


def test_a_plan_of_before_a_column_was_there_differs_only_where_the_column_says_more() -> None:
    old = as_json(make_plan({}, {"resolution": 24}))
    for row in old["rows"]:
        del row["recalibration_batches"], row["norm_frozen"]
    assert differences(old, as_json(make_plan({}, {"resolution": 24}))) == []
    lines = differences(old, as_json(make_plan({}, {"resolution": 24}, norm={"kind": "freeze"})))
    assert lines == ["from epoch 1: norm_frozen False -> True"]


BASE: dict[str, Any] = {"epochs": 2, "resolution": 16, "global_batch": 8, "warmup_epochs": 0.5}


def fingerprint(num_samples: int = 100, world_size: int = 1, phase: dict[str, Any] = BASE, **sections: Any) -> str:
    return make_plan(phase, num_samples=num_samples, world_size=world_size, **sections).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"num_samples": 101},
        {"world_size": 2},
        {"phase": {**BASE, "resolution": 24}},
        {"phase": {**BASE, "epochs": 3}},
        {"phase": {**BASE, "global_batch": 16}},
        {"phase": {**BASE, "crop_scale": [0.25, 1]}},
        {"phase": {**BASE, "crop_ratio": [1, 1]}},
        {"phase": {**BASE, "lr_scale": 2}},
        {"phase": {**BASE, "warmup_epochs": 0.25}},
        {"phase": {**BASE, "warmup_start_factor": 0.2}},
        {"learning_rate": {"base": 0.2}},
        {"learning_rate": {"base": 0.1, "base_batch": 8}},
        {"learning_rate": {"base": 0.1, "scaling": "none"}},
        {"learning_rate": {"base": 0.1, "shape": {"kind": "cosine"}}},
        {"learning_rate": {"base": 0.1, "shape": {"kind": "cosine", "begin_epoch": 1}}},
        {"learning_rate": {"base": 0.1, "restart": "per_phase"}},
        {"learning_rate": {"base": 0.1, "at_size_increase": 0.5}},
        {"phase": {**BASE, "warmup_start_factor": "base"}},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_what_decides_the_weights(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"phase": {**BASE, "name": "coarse"}},
        {"phase": {**{k: v for k, v in BASE.items() if k != "global_batch"}, "batch_per_worker": 8}},
        {"data": {"train": "elsewhere.beton", "decode_threads_per_worker": 7}},
        {"evaluation": {"resolution": 64}},
        {"checkpoint": {"every_epochs": 3}},
        {"run": {"mode": "ray", "lease_s": 9}},
        {"name": "other"},
    ],
    ids=str,
)
def test_the_fingerprint_ignores_what_does_not(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_the_fingerprint_ignores_how_cost_is_counted() -> None:
    job = make_job(BASE, {"resolution": 32})
    by_area = build_plan(job, num_samples=100, world_size=1)
    by_flops = build_plan(job, num_samples=100, world_size=1, flops={16: 1, 32: 3})
    assert by_area.fingerprint == by_flops.fingerprint


def test_the_fingerprint_is_the_same_in_every_process_and_version() -> None:
    assert fingerprint() == "6e80a2687fc0de40d1fb65da907f711efb97869a3600e4eab047e04129099092"
    cosine = {"base": 0.1, "shape": {"kind": "cosine"}}
    assert fingerprint(learning_rate=cosine) == "483de300ad4d159d5a3c308ee504c5f51ecc7f12c1f2c56fb6ab0c5bcfb8472f"


def as_json(plan: Plan) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json.dumps(plan.to_json()))
    return parsed


@settings(max_examples=30)
@given(phases)
def test_a_plan_does_not_differ_from_itself_in_json_or_out(some: Any) -> None:
    plan = make_plan(*some)
    assert differences(as_json(plan), as_json(plan)) == []
    assert differences(as_json(plan), plan.to_json()) == []


def test_differences_say_what_changed_from_which_epoch_on() -> None:
    old = make_plan({"epochs": 2}, {"epochs": 2, "resolution": 24})
    new = make_plan({"epochs": 2}, {"epochs": 3, "resolution": 32, "global_batch": 16}, num_samples=200, seed=1)
    lines = differences(as_json(old), as_json(new))
    assert lines[:3] == ["num_samples: 100 -> 200", "seed: 0 -> 1", "epochs: 4 -> 5"]
    assert lines[3].startswith("from epoch 2: batch_per_worker 8 -> 16, global_batch 8 -> 16, ")
    assert "resolution 24 -> 32" in lines[3]
    assert len(lines) == 4


def test_other_workers_at_the_same_global_batch_differ_in_their_number_and_share() -> None:
    old, new = (make_plan({}, world_size=workers) for workers in (2, 4))
    assert differences(as_json(old), as_json(new)) == ["world_size: 2 -> 4", "from epoch 0: batch_per_worker 4 -> 2"]


def test_a_renamed_phase_is_no_difference() -> None:
    old, new = make_plan({"name": "coarse"}), make_plan({"name": "first"})
    assert differences(as_json(old), as_json(new)) == []


def test_the_plan_in_json_holds_the_promised_rows_and_totals() -> None:
    document = as_json(make_plan({"epochs": 2}, {"resolution": 32}))
    for index, row in enumerate(document["rows"]):
        assert row["epoch"] == index
        for key in ("phase", "resolution", "batch_per_worker", "global_batch", "steps", "dropped_samples"):
            assert isinstance(row[key], int)
        for key in ("lr_start", "lr_end", "relative_cost"):
            assert isinstance(row[key], float)
    assert document["totals"]["epochs"] == len(document["rows"]) == 3
    assert 0 < document["totals"]["saving"] < 1


@pytest.mark.parametrize(
    ("world_size", "limit", "share"),
    [
        (1, 8, (8, 8)),
        (2, 8, (8, 4)),
        (4, 8, (8, 2)),
        (8, 8, (8, 1)),
        (2, 12, (8, 4)),
        (2, 64, (32, 1)),
        (1, 1, (1, 64)),
    ],
)
def test_gradients_are_accumulated_as_seldom_as_the_batch_of_a_worker_permits(
    world_size: int, limit: int, share: tuple[int, int]
) -> None:
    plan = make_plan({"global_batch": 64, "batch_per_worker": limit}, world_size=world_size)
    row = plan.rows[0]
    assert (row.batch_per_worker, row.accumulate) == share
    assert row.batch_per_worker * row.accumulate * world_size == row.global_batch == 64


@given(st.integers(20, 200), st.integers(1, 20), st.integers(0, 199))
def test_another_batch_takes_over_at_any_sample_and_drops_less_than_a_batch(
    num_samples: int, batch: int, samples_done: int
) -> None:
    start = Position(1, samples_done % num_samples)
    job = make_job({"epochs": 3, "global_batch": batch})
    plan = build_plan(job, num_samples=num_samples, world_size=1, start=start)
    row = plan.rows[1]
    assert row.offset <= start.samples_done
    assert (start.samples_done - row.offset) % batch == 0
    assert row.num_samples + row.dropped_samples == num_samples
    assert 0 <= row.dropped_samples < batch
    whole = build_plan(job, num_samples=num_samples, world_size=1)
    assert (plan.rows[0], plan.rows[2], plan.fingerprint) == (whole.rows[0], whole.rows[2], whole.fingerprint)
    if start.samples_done % batch == 0:
        assert row == whole.rows[1]


@pytest.mark.parametrize(("available", "world_size"), [(8, 4), (4, 4), (3, 2), (2, 2), (1, 1)])
def test_as_many_workers_as_there_are_and_divide_every_global_batch(available: int, world_size: int) -> None:
    job = make_job({"global_batch": 8}, {"global_batch": 16}, run={"workers": {"min": 1, "max": 6}})
    assert feasible_world(job, num_samples=100, available=available) == world_size


def test_too_few_workers_and_numbers_that_divide_no_batch_are_refused() -> None:
    job = make_job({"global_batch": 8}, run={"workers": {"min": 5, "max": 7}})
    with pytest.raises(PlanError, match="needs 5 workers, and there is room for 4"):
        feasible_world(job, num_samples=100, available=4)
    with pytest.raises(PlanError, match=r"no number from 5 to 7 can be planned for\n.*8 does not divide by 7"):
        feasible_world(job, num_samples=100, available=9)

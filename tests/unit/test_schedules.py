"""Sizes and learning rates at every place of a run."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.config import (
    Augmentation,
    Constant,
    Cosine,
    CropAtSize,
    Exponential,
    LearningRate,
    Phase,
    PiecewiseLinear,
    Polynomial,
    Ramp,
    Shape,
    Step,
)
from launcher.schedules import (
    Strengths,
    batch_factor,
    crop_scale_at,
    learning_rate_at,
    resolution_at,
    shape_factor,
    size_increases,
    strengths_by_phase,
    warmup_factor,
)

PHASE = Phase(epochs=4, resolution=16, global_batch=8)

ramps = st.builds(
    lambda multiple_of, start, end: Ramp(multiple_of=multiple_of, start=multiple_of * start, end=multiple_of * end),
    multiple_of=st.integers(8, 64),
    start=st.integers(1, 12),
    end=st.integers(1, 12),
)


def test_a_single_size_holds_for_the_whole_phase() -> None:
    assert [resolution_at(24, epoch, 3) for epoch in range(3)] == [24, 24, 24]


def test_a_ramp_starts_at_its_start_and_reaches_its_end_after_the_phase() -> None:
    ramp = Ramp(start=128, end=224, multiple_of=32)
    assert [resolution_at(ramp, epoch, 6) for epoch in range(7)] == [128, 128, 160, 192, 192, 192, 224]


def test_half_a_step_is_rounded_to_the_even_multiple() -> None:
    assert resolution_at(Ramp(start=160, end=192, multiple_of=32), 1, 2) == 192  # 5.5 steps
    assert resolution_at(Ramp(start=128, end=160, multiple_of=32), 1, 2) == 128  # 4.5 steps


def test_a_ramp_may_grow_between_two_places_of_its_phase_alone() -> None:
    ramp = Ramp(start=96, end=192, multiple_of=32, between_epochs=(1.5, 4.5))
    assert [resolution_at(ramp, epoch, 6) for epoch in range(7)] == [96, 96, 128, 128, 192, 192, 192]


def test_a_crops_share_of_the_area_follows_the_size_where_objects_are_to_keep_theirs() -> None:
    rule = CropAtSize(scale=(0.25, 0.75), at=224)
    assert crop_scale_at(rule, 224) == (0.25, 0.75)
    assert crop_scale_at(rule, 112) == (0.0625, 0.1875)
    assert crop_scale_at(rule, 448) == (1, 1)
    assert crop_scale_at((0.1, 0.9), 112) == (0.1, 0.9)


@given(st.integers(64, 512), st.integers(64, 512))
def test_an_object_has_as_many_pixels_at_every_size_unless_the_crop_is_the_whole_image(one: int, other: int) -> None:
    rule = CropAtSize(scale=(0.1, 0.9), at=512)
    pixels = [resolution / crop_scale_at(rule, resolution)[1] ** 0.5 for resolution in (one, other)]
    assert pixels[0] == pytest.approx(pixels[1])


@given(ramps, st.integers(1, 100))
def test_a_ramp_is_monotone_keeps_to_its_step_and_between_its_ends(ramp: Ramp, epochs: int) -> None:
    sizes = [resolution_at(ramp, epoch, epochs) for epoch in range(epochs + 1)]
    assert sizes == sorted(sizes, reverse=ramp.end < ramp.start)
    assert all(size % ramp.multiple_of == 0 for size in sizes)
    assert (sizes[0], sizes[-1]) == (ramp.start, ramp.end)


@given(ramps, st.integers(1, 100))
def test_a_ramp_is_never_more_than_half_a_step_from_the_straight_line(ramp: Ramp, epochs: int) -> None:
    for epoch in range(epochs + 1):
        line = ramp.start + (ramp.end - ramp.start) * epoch / epochs
        assert abs(resolution_at(ramp, epoch, epochs) - line) <= ramp.multiple_of / 2 + 1e-9


def test_a_piecewise_linear_shape_goes_through_its_points_and_is_held_outside_them() -> None:
    shape = PiecewiseLinear(kind="piecewise_linear", points=((1, 0.5), (3, 1), (4, 0)))
    factors = {epoch: shape_factor(shape, epoch, 10) for epoch in (0, 0.75, 1, 2, 3, 3.5, 4, 9)}
    assert factors == {0: 0.5, 0.75: 0.5, 1: 0.5, 2: 0.75, 3: 1, 3.5: 0.5, 4: 0, 9: 0}


def test_two_points_at_one_epoch_are_a_jump_that_takes_effect_there() -> None:
    shape = PiecewiseLinear(kind="piecewise_linear", points=((0, 1), (2, 0.5), (2, 0.25), (4, 0)))
    assert [shape_factor(shape, epoch, 4) for epoch in (0, 1, 2, 3, 4)] == [1, 0.75, 0.25, 0.125, 0]
    assert [shape_factor(shape, epoch, 4, arriving=True) for epoch in (1, 2, 4)] == [0.75, 0.5, 0]


def test_what_comes_before_a_jump_is_told_on_arriving_there() -> None:
    step = Step(kind="step", milestones_epochs=(3,), factor=0.1)
    assert [shape_factor(step, epoch, 9, arriving=True) for epoch in (2, 3, 4)] == pytest.approx([1, 1, 0.1])
    stairs = Exponential(kind="exponential", factor=0.5, every_epochs=2, stairs=True)
    assert [shape_factor(stairs, epoch, 9, arriving=True) for epoch in (0, 2, 3, 4)] == [1, 1, 0.5, 0.5]
    assert [shape_factor(stairs, epoch, 9) for epoch in (0, 2, 3, 4)] == [1, 0.5, 0.5, 0.25]
    held = Exponential(kind="exponential", factor=0.5, every_epochs=2, hold_epochs=3)
    assert [shape_factor(held, 3, 9), shape_factor(held, 3, 9, arriving=True)] == [0.5**1.5, 1]


shapes = st.one_of(
    st.builds(Cosine, kind=st.just("cosine"), final_factor=st.floats(0, 1), begin_epoch=st.integers(0, 9)),
    st.builds(Polynomial, kind=st.just("polynomial"), power=st.floats(0.5, 3), begin_epoch=st.integers(0, 9)),
    st.builds(Exponential, kind=st.just("exponential"), factor=st.just(0.97), every_epochs=st.floats(0.5, 4)),
    st.builds(PiecewiseLinear, kind=st.just("piecewise_linear"), points=st.just(((0, 0.5), (3, 1), (8, 0)))),
)


@given(shapes, st.integers(1, 10))
def test_where_a_shape_does_not_jump_it_arrives_where_it_goes_on(shape: Shape, epoch: int) -> None:
    assert shape_factor(shape, epoch, 10, arriving=True) == pytest.approx(shape_factor(shape, epoch, 10), abs=1e-15)


def test_strengths_grow_by_equal_steps_over_the_phases_that_are_augmented() -> None:
    wanted = Augmentation.model_validate(
        {
            "policy": {"kind": "rand_augment", "magnitude": {"start": 5, "end": 15}},
            "random_erasing": 0.1,
            "mixup": {"start": 0, "end": 0.2},
            "dropout": {"start": 0.1, "end": 0.4},
        }
    )
    centred = PHASE.model_copy(update={"centre_crop": 1.0})
    found = strengths_by_phase(wanted, [PHASE, PHASE, PHASE, PHASE, centred])
    assert [one.magnitude for one in found[:4]] == pytest.approx([5, 25 / 3, 35 / 3, 15])
    assert [one.mixup_alpha for one in found[:4]] == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])
    assert [one.dropout for one in found[:4]] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert {(one.policy, one.erasing_probability, one.stochastic_depth) for one in found[:4]} == {
        ("rand_augment", 0.1, None)
    }
    assert found[4] == Strengths()
    assert strengths_by_phase(wanted, [PHASE])[0].magnitude == 15


def test_a_polynomial_is_a_power_of_what_is_left() -> None:
    line = Polynomial(kind="polynomial", final_factor=0.2)
    assert [shape_factor(line, epoch, 8) for epoch in (0, 4, 8, 9)] == pytest.approx([1, 0.6, 0.2, 0.2])
    parabola = Polynomial(kind="polynomial", power=2, begin_epoch=2)
    assert [shape_factor(parabola, epoch, 10) for epoch in (0, 2, 6, 10)] == [1, 1, 0.25, 0]


def test_an_exponential_falls_by_its_factor_in_every_stretch() -> None:
    smooth = Exponential(kind="exponential", factor=0.25, every_epochs=2)
    assert [shape_factor(smooth, epoch, 9) for epoch in (0, 1, 2, 4)] == [1, 0.5, 0.25, 0.0625]


def test_efficientnets_stairs_fall_at_every_multiple_of_a_fraction_of_an_epoch() -> None:
    stairs = Exponential(kind="exponential", factor=0.97, every_epochs=2.4, stairs=True, hold_epochs=5)
    for times in range(3, 146):
        epoch = times * 12 / 5  # exact where it is a whole number
        assert shape_factor(stairs, epoch + 1e-6, 350) == pytest.approx(0.97**times)
        assert shape_factor(stairs, epoch - 1e-6, 350) == pytest.approx(0.97 ** (times - 1))
        if times % 5 == 0:
            assert shape_factor(stairs, epoch, 350) == pytest.approx(0.97**times)
            assert shape_factor(stairs, epoch, 350, arriving=True) == pytest.approx(0.97 ** (times - 1))
    assert [shape_factor(stairs, epoch, 350) for epoch in (0, 2.4, 4.9)] == [1, 1, 1]


def test_a_decay_waits_for_its_beginning_and_ends_with_the_run() -> None:
    late = Cosine(kind="cosine", begin_epoch=5)
    assert [shape_factor(late, epoch, 15) for epoch in (0, 5, 10, 15)] == pytest.approx([1, 1, 0.5, 0])
    never = Cosine(kind="cosine", begin_epoch=20)
    assert shape_factor(never, 15, 15) == 1


def test_a_step_falls_at_its_milestones_in_whatever_order_they_are_given() -> None:
    shape = Step(kind="step", milestones_epochs=(6, 3), factor=0.1)
    factors = [shape_factor(shape, epoch, 9) for epoch in (0, 2.999, 3, 5.999, 6, 9)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_cosine_goes_from_one_through_the_middle_to_its_final_factor() -> None:
    shape = Cosine(kind="cosine", final_factor=0.2)
    assert [shape_factor(shape, epoch, 8) for epoch in (0, 4, 8)] == pytest.approx([1, 0.6, 0.2])


@given(st.floats(0, 1), st.integers(1, 300), st.lists(st.floats(0, 1), min_size=2))
def test_a_cosine_never_climbs_nor_leaves_its_bounds(final: float, epochs: int, shares: list[float]) -> None:
    shape = Cosine(kind="cosine", final_factor=final)
    factors = [shape_factor(shape, share * epochs, epochs) for share in sorted(shares)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(factors))
    assert all(final - 1e-12 <= factor <= 1 for factor in factors)


def test_a_warmup_climbs_in_a_straight_line_to_the_phases_value() -> None:
    phase = Phase(epochs=4, resolution=16, global_batch=8, warmup_epochs=2, warmup_start_factor=0.2)
    assert [warmup_factor(phase, epoch, batch_factor=2) for epoch in (0, 0.5, 1, 2, 4)] == pytest.approx(
        [0.2, 0.4, 0.6, 1, 1]
    )


def test_without_warmup_a_phase_starts_at_its_value() -> None:
    assert warmup_factor(PHASE, 0, batch_factor=2) == 1


def test_a_warmup_from_base_starts_at_the_learning_rate_of_the_base_batch() -> None:
    phase = Phase(epochs=9, resolution=16, global_batch=8192, warmup_epochs=5, warmup_start_factor="base")
    rule = LearningRate(base=0.1, base_batch=256)
    found = [
        learning_rate_at(rule, phase, epoch=epoch, phase_start=0, num_epochs=9, global_batch=8192)
        for epoch in (0, 2.5, 5, 9)
    ]
    assert found == pytest.approx([0.1, 1.65, 3.2, 3.2])  # Goyal et al. 2017, a batch of 8192
    assert warmup_factor(phase, 0, batch_factor=0.5) == 1


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_linear_scaling_multiplies_the_learning_rate_as_the_batch(batch: int, times: int) -> None:
    rule = LearningRate(base=0.1)
    assert batch_factor(rule, 256) == 1
    assert batch_factor(rule, batch * times) == pytest.approx(times * batch_factor(rule, batch))
    assert batch_factor(LearningRate(base=0.1, scaling="none"), batch) == 1


def test_square_root_scaling_grows_as_the_root_of_the_batch() -> None:
    assert batch_factor(LearningRate(base=1, base_batch=256, scaling="sqrt"), 4096) == 4


def test_size_increases_are_counted_over_phases_and_within_ramps() -> None:
    ramp = Ramp(start=16, end=48, multiple_of=16)
    lengths_and_sizes: list[tuple[int, int | Ramp]] = [(2, 16), (4, ramp), (1, 16), (2, 24)]
    phases = [Phase(epochs=epochs, resolution=size, global_batch=8) for epochs, size in lengths_and_sizes]
    assert size_increases(phases) == (0, 0, 0, 1, 1, 1, 1, 2, 2)  # 16 16, 16 32 32 32, 16, 24 24


def test_a_shape_may_run_through_every_phase_anew() -> None:
    phase = Phase(epochs=4, resolution=16, global_batch=256)
    rule = LearningRate(base=1, shape=Cosine(kind="cosine"), restart="per_phase")
    found = [
        learning_rate_at(rule, phase, epoch=epoch, phase_start=6, num_epochs=20, global_batch=256)
        for epoch in (6, 8, 10)
    ]
    assert found == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize(
    "shape",
    [
        Constant(),
        Cosine(kind="cosine"),
        Step(kind="step", milestones_epochs=(5,)),
        PiecewiseLinear(kind="piecewise_linear", points=((0, 0), (9, 1))),
    ],
)
def test_the_learning_rate_is_the_product_of_its_factors(shape: Shape) -> None:
    phase = Phase(epochs=4, resolution=16, global_batch=512, lr_scale=0.5, warmup_epochs=2, warmup_start_factor=0)
    rule = LearningRate(base=0.3, base_batch=256, shape=shape)
    found = learning_rate_at(rule, phase, epoch=5.5, phase_start=5, num_epochs=10, global_batch=512)
    assert found == pytest.approx(0.3 * 2 * shape_factor(shape, 5.5, 10) * 0.5 * 0.25)
    dropping = rule.model_copy(update={"at_size_increase": 0.5})
    dropped = learning_rate_at(
        dropping, phase, epoch=5.5, phase_start=5, num_epochs=10, global_batch=512, size_increases=3
    )
    assert dropped == pytest.approx(found / 8)

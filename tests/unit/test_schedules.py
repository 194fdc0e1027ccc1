"""Sizes and learning rates at every place of a run."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.config import Constant, Cosine, LearningRate, Phase, PiecewiseLinear, Ramp, Shape, Step
from launcher.schedules import batch_factor, learning_rate_at, resolution_at, shape_factor, warmup_factor

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
    assert [warmup_factor(phase, epoch) for epoch in (0, 0.5, 1, 2, 4)] == pytest.approx([0.2, 0.4, 0.6, 1, 1])


def test_without_warmup_a_phase_starts_at_its_value() -> None:
    assert warmup_factor(PHASE, 0) == 1


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_linear_scaling_multiplies_the_learning_rate_as_the_batch(batch: int, times: int) -> None:
    rule = LearningRate(base=0.1)
    assert batch_factor(rule, 256) == 1
    assert batch_factor(rule, batch * times) == pytest.approx(times * batch_factor(rule, batch))
    assert batch_factor(LearningRate(base=0.1, scaling="none"), batch) == 1


@pytest.mark.parametrize(
    "shape",
    [
        Constant(),
        Cosine(kind="cosine"),
        Step(kind="step", milestones_epochs=(5,)),
        PiecewiseLinear(kind="piecewise_linear", points=((0, 0), (9, 1))),
    ],
)
def test_the_learning_rate_is_the_product_of_its_five_factors(shape: Shape) -> None:
    phase = Phase(epochs=4, resolution=16, global_batch=512, lr_scale=0.5, warmup_epochs=2, warmup_start_factor=0)
    rule = LearningRate(base=0.3, base_batch=256, shape=shape)
    found = learning_rate_at(rule, phase, epoch=5.5, phase_start=5, num_epochs=10, global_batch=512)
    assert found == pytest.approx(0.3 * 2 * shape_factor(shape, 5.5, 10) * 0.5 * 0.25)

"""Which samples, in which order, for whom."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.planning import build_plan
from launcher.sample_order import Indices, evaluation_batches, order, order_hash, rank_batches
from tests.unit.sample_jobs import make_job

seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 2**32 - 1)


@given(seeds, epochs, st.integers(0, 300))
def test_an_order_visits_every_sample_once(seed: int, epoch: int, num_samples: int) -> None:
    found = order(seed, epoch, num_samples)
    assert found.dtype == np.int64
    assert found.shape == (num_samples,)
    assert sorted(found) == list(range(num_samples))


def test_an_order_never_changes_silently() -> None:
    """A run resumed by a later version goes on with the same samples."""
    assert order(0, 0, 10).tolist() == [1, 3, 6, 8, 2, 0, 5, 7, 4, 9]
    assert order(7, 3, 10).tolist() == [1, 2, 6, 8, 0, 7, 3, 9, 4, 5]
    assert order(2**63 - 1, 90, 10).tolist() == [9, 7, 0, 6, 5, 1, 2, 3, 8, 4]
    assert order_hash(order(0, 0, 50_000)) == "c44a0fadf4cffd82"
    assert order_hash(order(42, 15, 50_000)) == "5e5b7d9d12945bf5"


@given(seeds, epochs)
def test_other_epochs_and_seeds_have_other_orders(seed: int, epoch: int) -> None:
    others = [(seed, epoch ^ 1), (seed ^ 1, epoch), (seed ^ 2**40, epoch)]
    assert len({order_hash(order(*one, 50)) for one in [(seed, epoch), *others]}) == 4


def test_samples_fall_everywhere_alike() -> None:
    """Mean place of each sample over many epochs, and correlation of one epoch's places with the next one's."""
    num_samples, num_epochs = 40, 2000
    places = np.stack([np.argsort(order(1, epoch, num_samples)) for epoch in range(num_epochs)])
    spread_of_mean = np.sqrt((num_samples**2 - 1) / 12 / num_epochs)
    assert abs(places.mean(axis=0) - (num_samples - 1) / 2).max() < 5 * spread_of_mean
    counts = np.bincount(places[:, 0], minlength=num_samples)
    assert ((counts - num_epochs / num_samples) ** 2 / (num_epochs / num_samples)).sum() < 90  # chi-squared, 39 degrees
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in pairwise(places)]
    assert abs(np.mean(correlations)) < 5 / np.sqrt(num_samples * num_epochs)


def test_neighbours_in_the_file_are_torn_apart() -> None:
    found = order(0, 0, 10_000)
    assert (abs(np.diff(found)) == 1).sum() < 20  # 2 are expected


@given(seeds, epochs, st.integers(0, 300), st.integers(2, 320))
def test_an_order_by_windows_visits_every_sample_once(seed: int, epoch: int, num_samples: int, window: int) -> None:
    found = order(seed, epoch, num_samples, window=window)
    assert found.dtype == np.int64
    assert sorted(found) == list(range(num_samples))
    if window >= num_samples:
        assert (found == order(seed, epoch, num_samples)).all()


@given(seeds, epochs, st.integers(2, 60), st.integers(0, 12))
def test_an_order_by_windows_stays_in_one_stretch_of_the_file_at_a_time(
    seed: int, epoch: int, window: int, num_windows: int
) -> None:
    found = order(seed, epoch, window * num_windows + 1, window=window)
    starts = [start for start in range(1, len(found)) if abs(found[start] - found[start - 1]) >= window]
    lengths = np.diff([0, *starts, len(found)])
    # Two stretches that follow each other in the file may have drawn neighbouring turns, and look like one.
    assert len(lengths) <= num_windows + 2
    for first, last in pairwise([0, *starts, len(found)]):
        stretch = found[first:last]
        assert stretch.max() - stretch.min() == len(stretch) - 1


def test_an_order_by_windows_never_changes_silently() -> None:
    assert order(0, 0, 10, window=4).tolist() == [3, 6, 5, 4, 8, 7, 9, 1, 2, 0]
    assert order_hash(order(42, 15, 50_000, window=1000)) == "c14bed6ca74cb1a7"


def test_windows_begin_elsewhere_in_each_epoch_and_take_turns_at_random() -> None:
    first_windows, cuts = set(), set()
    for epoch in range(40):
        found = order(1, epoch, 1000, window=100)
        first_windows.add(found[0] // 100)
        cuts.add(found[:20].min() % 100)
    assert len(first_windows) > 5
    assert len(cuts) > 20


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(2, 40))
def test_ranks_share_an_order_by_windows_as_any_other(seed: int, world_size: int, batch: int, window: int) -> None:
    global_batch = world_size * batch
    epoch_order = order(seed, 0, 6 * global_batch + 1, window=window)
    steps = all_ranks(
        epoch_order, start=2 * global_batch, until=6 * global_batch, global_batch=global_batch, world_size=world_size
    )
    seen = list(chain.from_iterable(chain.from_iterable(steps)))
    assert seen == epoch_order[2 * global_batch : 6 * global_batch].tolist()


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Number of samples, batch per rank, world size, and where to start and end."""
    world_size, batch = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    global_batch = world_size * batch
    num_samples = draw(st.integers(global_batch, global_batch * 6))
    until = draw(st.integers(0, num_samples // global_batch)) * global_batch
    start = draw(st.integers(0, until // global_batch)) * global_batch
    return num_samples, world_size, global_batch, start, until


def all_ranks(
    epoch_order: Indices, *, start: int, until: int, global_batch: int, world_size: int
) -> list[list[Indices]]:
    """Step -> rank -> batch."""
    by_rank = [
        rank_batches(epoch_order, start=start, until=until, global_batch=global_batch, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return [list(step) for step in zip(*by_rank, strict=True)]


@given(spans())
def test_ranks_together_train_each_sample_of_a_span_once_in_order(span: tuple[int, int, int, int, int]) -> None:
    num_samples, world_size, global_batch, start, until = span
    epoch_order = order(3, 1, num_samples)
    steps = all_ranks(epoch_order, start=start, until=until, global_batch=global_batch, world_size=world_size)
    assert len(steps) == (until - start) // global_batch
    assert {len(batch) for step in steps for batch in step} <= {global_batch // world_size}
    seen = [*chain.from_iterable(batch for step in steps for batch in step)]
    assert seen == epoch_order[start:until].tolist()


@given(st.integers(24, 200), st.sampled_from([2, 3, 4, 6, 8, 12, 24]))
def test_any_world_size_sees_the_same_global_batches(num_samples: int, world_size: int) -> None:
    epoch_order = order(0, 0, num_samples)
    until = num_samples // 24 * 24
    alone = all_ranks(epoch_order, start=0, until=until, global_batch=24, world_size=1)
    shared = all_ranks(epoch_order, start=0, until=until, global_batch=24, world_size=world_size)
    assert [np.concatenate(step).tolist() for step in shared] == [step[0].tolist() for step in alone]


@given(spans(), st.sampled_from([1, 2, 3]))
def test_a_restart_in_the_middle_goes_on_exactly_also_with_other_ranks(
    span: tuple[int, int, int, int, int], factor: int
) -> None:
    num_samples, world_size, global_batch, middle, until = span
    epoch_order = order(5, 2, num_samples)
    whole = all_ranks(epoch_order, start=0, until=until, global_batch=global_batch, world_size=world_size)
    first = all_ranks(epoch_order, start=0, until=middle, global_batch=global_batch, world_size=global_batch)
    rest = all_ranks(epoch_order, start=middle, until=until, global_batch=global_batch, world_size=world_size)
    assert [np.concatenate(step).tolist() for step in first + rest] == [np.concatenate(step).tolist() for step in whole]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_an_epoch_of_a_plan_loses_only_the_declared_tail(world_size: int) -> None:
    plan = build_plan(make_job({"global_batch": 8}), num_samples=101, world_size=world_size)
    (row,) = plan.rows
    epoch_order = order(plan.seed, row.epoch, plan.num_samples)
    steps = all_ranks(epoch_order, start=0, until=row.num_samples, global_batch=8, world_size=world_size)
    seen = {*chain.from_iterable(batch.tolist() for step in steps for batch in step)}
    assert len(steps) == row.steps
    assert len(seen) == row.num_samples == 101 - row.dropped_samples


@pytest.mark.parametrize(
    "wrong", [{"start": 3}, {"until": 7}, {"until": 104}, {"world_size": 3}], ids=lambda wrong: str(wrong)
)
def test_a_span_that_cuts_a_batch_or_leaves_the_epoch_is_refused(wrong: dict[str, int]) -> None:
    span = {"start": 0, "until": 96, "global_batch": 8, "rank": 0, "world_size": 2, **wrong}
    with pytest.raises(AssertionError):
        rank_batches(order(0, 0, 100), **span)


@settings(max_examples=200)
@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 40))
def test_evaluation_sees_every_sample_exactly_once_in_even_shares(
    num_samples: int, world_size: int, batch: int
) -> None:
    shares = [
        evaluation_batches(num_samples, batch=batch, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert [*chain.from_iterable(part.tolist() for share in shares for part in share)] == list(range(num_samples))
    sizes = [sum(len(part) for part in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for share in shares:
        assert all(len(part) == batch for part in share[:-1])
        assert all(0 < len(part) <= batch for part in share)


def test_an_orders_hash_tells_orders_apart_and_copies_alike() -> None:
    one = order(0, 0, 100)
    assert order_hash(one) == order_hash(one.copy()) == order_hash(np.repeat(one, 2)[::2])
    swapped = one.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert order_hash(swapped) != order_hash(one)
    assert len(order_hash(one)) == 16

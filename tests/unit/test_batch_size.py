"""The search for the largest batch, as far as it needs no memory to run out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.batch_size import (
    batch_by_area,
    is_out_of_memory,
    largest_batch,
    most_useful,
    open_phases,
    with_batches,
)
from tests.unit.sample_jobs import make_job


@given(capacity=st.integers(8, 5000), at_most=st.integers(1, 5000))
def test_the_search_finds_what_trains_with_a_margin_and_no_more(capacity: int, at_most: int) -> None:
    tried: list[int] = []

    def trains(batch: int) -> bool:
        tried.append(batch)
        return batch <= capacity

    found = largest_batch(trains, at_most=at_most)
    assert 1 <= found <= min(capacity, at_most)
    assert found == at_most or found % 8 == 0
    if at_most <= capacity:
        assert found == at_most
    elif capacity >= 16:
        assert found >= 0.9 * (capacity // 8 * 8) - 8
    assert max(tried) <= at_most
    assert len(tried) <= 2 * (5000).bit_length()


def test_nothing_is_found_where_not_even_the_least_trains() -> None:
    assert largest_batch(lambda _: False, at_most=512) == 0


def test_the_margin_is_left_only_where_memory_ran_out() -> None:
    assert largest_batch(lambda batch: batch <= 400, at_most=4096) == 360
    assert largest_batch(lambda batch: batch <= 400, at_most=400) == 400


@pytest.mark.parametrize(("resolution", "batch"), [(32, 64), (24, 112), (16, 256), (64, 16), (256, 1)])
def test_batches_follow_the_area_in_multiples_of_eight(resolution: int, batch: int) -> None:
    assert batch_by_area(resolution, base=64, at=32) == batch


def test_open_phases_are_told_with_their_largest_size() -> None:
    job = make_job(
        {"resolution": {"start": 16, "end": 32, "multiple_of": 8}, "epochs": 2, "batch_per_worker": "auto"},
        {"resolution": 48},
        {"resolution": 64, "batch_per_worker": "auto", "global_batch": 96},
    )
    assert open_phases(job) == {0: 24, 2: 64}
    settled = with_batches(job, {0: 40, 2: 24})
    assert [phase.batch_per_worker for phase in settled.phases] == [40, None, 24]
    assert open_phases(settled) == {}


def test_no_worker_takes_more_than_its_share() -> None:
    run = {"mode": "ray", "workers": {"min": 2, "max": 4}}
    job = make_job({"batch_per_worker": "auto"}, {"batch_per_worker": "auto", "global_batch": 96}, run=run)
    assert most_useful(job, 0, num_samples=1000) == 250
    assert most_useful(job, 1, num_samples=1000) == 48


class OutOfMemoryError(RuntimeError):
    """As torch's is called."""


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it

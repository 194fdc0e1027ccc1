"""How many threads a worker computes with."""

from __future__ import annotations

import os

import pytest

from launcher.worker_process import threads_per_worker


@pytest.mark.parametrize(
    ("granted", "wanted", "threads"),
    [(None, None, 6), ("4", None, 2), ("96", None, 6), ("1", None, 1), ("4", 5, 5)],
)
def test_workers_share_the_cores_of_their_affinity_or_those_that_slurm_granted_if_they_are_fewer(
    granted: str | None, wanted: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(12)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if granted is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    assert threads_per_worker(wanted, 2) == threads

"""When a grace period is too short for a stop, and what is said then."""

from __future__ import annotations

import pytest

from launcher.coordinator import Cadence
from launcher.slurm.grace import stop_seconds, warn_of_grace

MB = 10**6


def test_without_a_known_grace_nothing_is_said() -> None:
    assert warn_of_grace(Cadence(grace_s=None), checkpoint_bytes=10**12) is None


@pytest.mark.parametrize(("grace_s", "checkpoint_mb"), [(60.0, 300), (10.0, 300), (5.0, 100), (300.0, 20_000)])
def test_a_grace_that_holds_a_lease_and_a_save_is_passed_over(grace_s: float, checkpoint_mb: int) -> None:
    assert warn_of_grace(Cadence(grace_s=grace_s), checkpoint_bytes=checkpoint_mb * MB) is None


@pytest.mark.parametrize(("grace_s", "checkpoint_mb"), [(1.0, 1), (30.0, 6_000), (4.0, 600)])
def test_a_grace_that_a_save_does_not_fit_into_is_warned_of(grace_s: float, checkpoint_mb: int) -> None:
    words = warn_of_grace(Cadence(grace_s=grace_s), checkpoint_bytes=checkpoint_mb * MB)
    assert words is not None
    assert words.startswith(f"grace_s: {grace_s:g} s are less than the ")
    assert f"a save of {checkpoint_mb:,} MB" in words


def test_a_long_lease_counts_where_the_grace_does_not_shorten_it() -> None:
    stop_s = stop_seconds(Cadence(lease_s=20.0), checkpoint_bytes=100 * MB)
    assert stop_s == pytest.approx(20.0 + stop_seconds(Cadence(lease_s=1e-9), checkpoint_bytes=100 * MB))

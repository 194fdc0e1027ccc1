"""What is said before a phase that the job's time will not hold."""

from __future__ import annotations

import pytest

from launcher.plan import Plan, Position
from launcher.slurm.time_left import VARIABLE, Measured, job_ends_at, may_not_fit
from tests.unit.sample_jobs import make_plan


@pytest.fixture
def plan() -> Plan:
    """Four epochs at 16 px, then two at 32 px, which cost four times as much each."""
    return make_plan({"epochs": 4, "resolution": 16}, {"epochs": 2, "resolution": 32, "name": "large"})


def test_a_phase_that_fits_is_passed_over(plan: Plan) -> None:
    assert may_not_fit(plan, Position(4), Measured(3, 10.0), left_s=80.0) is None


def test_a_phase_that_does_not_fit_is_told_at_the_pace_that_its_size_will_have(plan: Plan) -> None:
    told = may_not_fit(plan, Position(4), Measured(3, 10.0), left_s=79.0)
    assert told is not None
    assert told.needs_s == pytest.approx(80.0)
    assert (told.phase, told.left_s) == (1, 79.0)
    assert str(told).startswith("phase 1 (large) needs about 80 s, and the job has 79 s left: ")


def test_in_the_middle_of_a_phase_only_what_is_left_of_it_counts(plan: Plan) -> None:
    told = may_not_fit(plan, Position(2, 50), Measured(1, 3600.0), left_s=0.0)
    assert told is not None
    assert told.needs_s == pytest.approx(1.5 * 3600)
    assert "needs about 90 min" in str(told)


def test_a_job_that_has_run_out_of_time_has_none_left_rather_than_less(plan: Plan) -> None:
    told = may_not_fit(plan, Position(0), Measured(3, 10.0), left_s=-5.0)
    assert told is not None
    assert told.left_s == 0.0


def test_at_the_end_of_the_plan_nothing_is_left_to_fit(plan: Plan) -> None:
    assert may_not_fit(plan, plan.end, Measured(5, 10.0), left_s=0.0) is None


def test_outside_of_slurm_no_end_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert job_ends_at() is None
    monkeypatch.setenv(VARIABLE, "1700000000.0")
    assert job_ends_at() == 1700000000.0

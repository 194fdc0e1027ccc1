"""Runs killed at named failpoints end as if nothing had happened: a small share of `make faults`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kill_engine import KillEngine, summary
from tests.faults.nursery import Nursery


def test_killed_runs_end_with_the_weights_and_the_ledger_of_an_uninterrupted_one(
    nursery: Nursery, tmp_path: Path
) -> None:
    trials = list(KillEngine(nursery, tmp_path, seed=1).trials(16))
    assert [trial for trial in trials if trial.differences] == []
    assert {trial.workers for trial in trials} == {2, 3}
    assert len({phase for trial in trials for phase in trial.phases}) > 1, summary(trials)

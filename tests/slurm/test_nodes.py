"""Runs over several nodes, with the real driver and a real Ray: a small share of `make slurm-cases`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.paths import RunPaths
from launcher.slurm.records import SlurmPaths
from tests.integration.toy import final_sums
from tests.slurm.cluster import Cluster
from tests.slurm.evidence import gather
from tests.slurm.trial import Trial, stray

pytestmark = pytest.mark.timeout(1800)

Start = Callable[..., Trial]


@pytest.fixture
def start(slurm: Cluster, tmp_path: Path, drawn: Path) -> Start:
    """A run of that name, which goes on for minutes unless its end is awaited."""

    def call(name: str, **site: object) -> Trial:
        trial = Trial(slurm, tmp_path, drawn, name, site=site)
        trial.submit()
        return trial

    return call


def test_preempted_it_ends_with_the_weights_of_an_undisturbed_run_that_was_beside_it_on_its_nodes(
    slurm: Cluster, start: Start
) -> None:
    """Neither is harmed by the other: one comes up beside a run that trains, and goes on when that has ended."""
    undisturbed = start("undisturbed")
    undisturbed.await_steps(1)
    one, another = slurm.nodes_of(undisturbed.job_id)
    # Local ranks are Ray's by address, and all nodes share one here.
    assert undisturbed.attempts[0].nodes in ([one, one, another, another], [another, another, one, one])
    preempted = undisturbed.beside()
    preempted.await_steps(10)
    assert undisturbed.await_end() == "COMPLETED"
    preempted.preempt()
    assert preempted.await_end() == "COMPLETED"
    assert stray(slurm) == []
    assert [attempt.plan.world_size for attempt in preempted.attempts] == [4, 4]
    assert preempted.events("attempt_started")[1]["checkpoint"] is not None
    assert final_sums(RunPaths(preempted.root)) == final_sums(RunPaths(undisturbed.root))
    assert gather(preempted.attempts).ledger == gather(undisturbed.attempts).ledger
    assert not list(SlurmPaths(preempted.root).folder.glob("meeting-*"))


def test_requeued_on_fewer_nodes_order_and_learning_rate_are_those_of_the_new_plan(
    slurm: Cluster, start: Start
) -> None:
    trial = start("shrunk", nodes={"min": 1, "max": 2})
    trial.await_steps(10)
    slurm.run("scontrol", "update", f"NodeName={','.join(slurm.nodes[1:])}", "State=drain", "Reason=test")
    slurm.run("scancel", "--signal=USR2", trial.job_id)
    trial.await_steps(1, after=1)
    assert trial.await_end() == "COMPLETED"
    assert [attempt.plan.world_size for attempt in trial.attempts] == [4, 2]
    found = gather(trial.attempts)
    assert (found.lost, found.repeated, found.astray) == (0, 0, ())

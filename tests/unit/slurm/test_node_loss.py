"""What a node's agent makes of a job that has lost a node and goes on."""

from __future__ import annotations

import pytest

from launcher.slurm.node_loss import Fate, fate_of

JOB = {"JobState": "RUNNING", "Restarts": "1", "BatchHost": "n1"}


@pytest.mark.parametrize(
    ("nodes", "fate"),
    [
        (["n1", "n2", "n3"], Fate.AS_BEFORE),
        (["n1", "n2"], Fate.AS_BEFORE),
        (["n2", "n3"], Fate.HEADLESS),
        (["n1", "n3"], Fate.CAST_OUT),
        (["n3"], Fate.CAST_OUT),
    ],
)
def test_the_first_node_and_its_own_are_what_a_node_asks_for(nodes: list[str], fate: Fate) -> None:
    assert fate_of(JOB, nodes, restarts=1, node="n2") is fate


@pytest.mark.parametrize(
    "changes", [{"JobState": "COMPLETING"}, {"JobState": "PENDING"}, {"Restarts": "2"}, {"JobState": ""}]
)
def test_a_job_that_is_ending_or_begins_anew_is_left_to_slurm(changes: dict[str, str]) -> None:
    assert fate_of({**JOB, **changes}, ["n3"], restarts=1, node="n2") is Fate.AS_BEFORE


def test_an_allocation_without_a_batch_script_has_no_first_node_to_lose() -> None:
    fields = {"JobState": "RUNNING", "Restarts": "1"}
    assert fate_of(fields, ["n2"], restarts=1, node="n2") is Fate.AS_BEFORE

"""How a submitted run stands: while Slurm knows its job, and when it has forgotten it."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.slurm.commands import parse_sacct, parse_squeue
from launcher.slurm.conduct import Ending
from launcher.slurm.standing import QueueEntry, standing


def line(event: str, *, job_id: str = "7", restarts: int = 0, **facts: Any) -> dict[str, Any]:
    return {"event": event, "job_id": job_id, "restarts": restarts, **facts}


def records(*endings: str) -> list[dict[str, Any]]:
    """A stay for each; "" for one whose agent died without a word."""
    lines = []
    for restarts, ending in enumerate(endings):
        lines.append(line("agent_started", restarts=restarts))
        if ending:
            lines.append(line("agent_ended", restarts=restarts, ending=ending))
    return lines


def told(state: str) -> QueueEntry:
    return QueueEntry("7", state, "Priority", "n[1-2]", "9:00")


@pytest.mark.parametrize("state", ["PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "SUSPENDED", "COMPLETING"])
def test_a_live_jobs_state_is_slurms_word_and_nothing_is_to_be_resumed(state: str) -> None:
    stands = standing("7", told(state), records(""), checkpoint="")
    assert (stands.state, stands.is_live, stands.resumable) == (state, True, False)


def test_a_waiting_job_tells_for_what_and_a_running_one_where() -> None:
    assert standing("7", told("PENDING"), [], checkpoint="").explanation == "waits (Priority)"
    assert standing("7", told("RUNNING"), [], checkpoint="").explanation == "on n[1-2], 9:00 left"


@pytest.mark.parametrize(
    ("ending", "state", "resumable"),
    [
        (Ending.DONE, "COMPLETED", False),
        (Ending.CANCELLED, "CANCELLED", True),
        (Ending.STOPPED, "FAILED", True),
        (Ending.FAILED, "FAILED", True),
        (Ending.GAVE_UP, "FAILED", True),
    ],
)
def test_a_job_that_slurm_has_forgotten_stands_as_it_ended(ending: Ending, state: str, resumable: bool) -> None:
    forgotten = standing("7", None, records("requeued", ending.value), checkpoint="")
    known = standing("7", told(state), records("requeued", ending.value), checkpoint="")
    assert forgotten == known
    assert (forgotten.state, forgotten.restarts, forgotten.resumable) == (state, 1, resumable)


@pytest.mark.parametrize("endings", [(), ("",), ("requeued",), ("requeued", "")])
def test_a_job_that_vanished_without_a_word_is_unknown_and_resumable(endings: tuple[str, ...]) -> None:
    stands = standing("7", None, records(*endings), checkpoint="")
    assert (stands.state, stands.resumable) == ("UNKNOWN", True)
    assert "forgotten" in stands.explanation


def test_preempted_for_good_is_told_apart_from_cancelled() -> None:
    lines = [*records(""), line("slurm_asked", cause="preempted for good"), line("agent_ended", ending="stopped")]
    assert standing("7", told("PREEMPTED"), lines, checkpoint="").explanation == "stopped: preempted for good"


def test_other_jobs_of_the_same_run_do_not_count() -> None:
    lines = [line("agent_started", job_id="6"), line("agent_ended", job_id="6", ending="done")]
    assert standing("7", None, lines, checkpoint="").state == "UNKNOWN"


def test_squeues_and_sacct_answers_are_read() -> None:
    assert parse_squeue("7|RUNNING|None|n[1-2]|9:00\n8_1|PENDING|Priority||10:00\n") == [
        QueueEntry("7", "RUNNING", "None", "n[1-2]", "9:00"),
        QueueEntry("8_1", "PENDING", "Priority", "", "10:00"),
    ]
    assert parse_sacct("7|CANCELLED by 1000\n8_1|COMPLETED\n") == [
        QueueEntry("7", "CANCELLED"),
        QueueEntry("8_1", "COMPLETED"),
    ]
    assert parse_squeue("slurm_load_jobs error: Invalid job id specified") == []

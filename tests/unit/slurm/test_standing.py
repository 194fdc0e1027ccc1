"""How a submitted run stands: while Slurm knows its job, and when it has forgotten it."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.slurm.commands import parse_sacct, parse_squeue
from launcher.slurm.conduct import Ending
from launcher.slurm.standing import QueueEntry, is_final, standing


def line(event: str, *, job_id: str = "7", restarts: int = 0, **facts: Any) -> dict[str, Any]:
    time = f"2026-03-14T09:26:0{restarts}.000+00:00"
    return {"event": event, "time": time, "job_id": job_id, "restarts": restarts, **facts}


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


LIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING", "COMPLETING", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "A_STATE_OF_A_LATER_SLURM"),
)
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)


@pytest.mark.parametrize("state", LIVE)
def test_a_live_jobs_state_is_slurms_word_and_nothing_is_to_be_resumed(state: str) -> None:
    stands = standing("7", told(state), records(""), checkpoint="")
    assert (stands.state, stands.is_live, stands.resumable) == (state, True, False)


@pytest.mark.parametrize("state", OVER)
def test_a_job_that_is_over_can_be_resumed(state: str) -> None:
    stands = standing("7", told(state), records(""), checkpoint="")
    assert (stands.state, stands.is_live, stands.resumable) == (state, False, True)
    assert stands.explanation == "its agent ended without a word"


def test_a_waiting_job_tells_for_what_and_a_running_one_where() -> None:
    for state in ("PENDING", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        assert standing("7", told(state), [], checkpoint="").explanation == "waits (Priority)"
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


DOWN = "Slurm cannot be asked: Unable to contact slurm controller"


@pytest.mark.parametrize(
    ("endings", "explanation"),
    [
        ((), "by the run directory it has not begun"),
        (("requeued", ""), "by the run directory it began at 2026-03-14T09:26:01 UTC and has not ended"),
        (("requeued",), "by the run directory it was queued again at 2026-03-14T09:26:00 UTC"),
    ],
)
def test_a_job_that_slurm_cannot_be_asked_about_may_live_and_is_not_resumable(
    endings: tuple[str, ...], explanation: str
) -> None:
    stands = standing("7", None, records(*endings), checkpoint="", trouble=DOWN)
    assert (stands.state, stands.is_live, stands.resumable, stands.trouble) == ("UNKNOWN", None, False, DOWN)
    assert stands.explanation == explanation


def test_how_it_ended_is_told_without_slurm_too_and_nothing_is_resumed_yet() -> None:
    stands = standing("7", None, records("failed"), checkpoint="", trouble=DOWN)
    assert (stands.state, stands.explanation) == ("FAILED", "failed; see the log")
    assert (stands.is_live, stands.resumable) == (None, False)


def test_what_accounting_tells_holds_while_the_controller_is_away() -> None:
    stands = standing("7", told("TIMEOUT"), records(""), checkpoint="", trouble=DOWN)
    assert (stands.is_live, stands.resumable) == (False, True)


@pytest.mark.parametrize(
    ("codes", "saved"),
    [
        ((3,), "everything saved up to the stop"),
        ((1,), "its last checkpoint stands"),
        ((-9,), "its last checkpoint stands"),
        ((3, 1), "its last checkpoint stands"),
        ((), "its last checkpoint stands"),
    ],
)
def test_a_cancelled_job_has_saved_everything_only_if_its_driver_says_so(codes: tuple[int, ...], saved: str) -> None:
    drivers = [line("driver_ended", exit_code=code) for code in codes]
    lines = [line("agent_started"), *drivers, line("agent_ended", ending="cancelled")]
    assert standing("7", told("CANCELLED"), lines, checkpoint="").explanation == f"cancelled by its user, {saved}"


def test_why_an_earlier_stay_was_stopped_says_nothing_about_the_last() -> None:
    lines = [*records(""), line("slurm_asked", cause="at its time limit"), *records("requeued", "")]
    assert standing("7", told("NODE_FAIL"), lines, checkpoint="").explanation == "its agent ended without a word"


def test_a_job_that_ended_in_the_queue_where_it_was_put_again_says_so() -> None:
    stands = standing("7", told("CANCELLED"), records("requeued"), checkpoint="")
    assert stands.explanation == "ended after it was queued again, before its agent began"


@pytest.mark.parametrize("ending", Ending)
def test_after_every_ending_but_a_requeue_or_a_takeover_no_agent_follows(ending: Ending) -> None:
    assert is_final(ending) is (ending not in (Ending.REQUEUED, Ending.SUPERSEDED))


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

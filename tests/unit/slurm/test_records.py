"""When the agents of a stay's other nodes know that it is over."""

from __future__ import annotations

import pytest

from launcher.event_log import LoggedEvent
from launcher.slurm.conduct import Ending
from launcher.slurm.job_view import Cause
from launcher.slurm.records import Stay, ending_of, holder, is_over

FIRST, SECOND, OTHER_JOB = Stay("7", 0), Stay("7", 1), Stay("8", 0)


def started(stay: Stay) -> LoggedEvent:
    return line("agent_started", stay)


def ended(stay: Stay, ending: Ending = Ending.STOPPED) -> LoggedEvent:
    return line("agent_ended", stay, ending=ending.value)


def asked(stay: Stay, cause: Cause) -> LoggedEvent:
    return line("slurm_asked", stay, cause=cause.value)


def line(event: str, stay: Stay, **facts: str) -> LoggedEvent:
    return LoggedEvent({"event": event, "job_id": stay.job_id, "restarts": stay.restarts, **facts}, where="here")


@pytest.mark.parametrize("earlier", [[], [started(FIRST)], [started(FIRST), ended(FIRST)], [started(OTHER_JOB)]])
def test_a_stay_whose_first_agent_has_yet_to_begin_is_not_over(earlier: list[LoggedEvent]) -> None:
    """Also where the stay before was killed without a word."""
    assert not is_over(earlier, SECOND)
    assert not is_over([*earlier, started(SECOND), line("stop_asked", SECOND)], SECOND)


def test_it_is_over_when_its_first_agent_has_ended() -> None:
    assert is_over([started(FIRST), started(SECOND), ended(SECOND)], SECOND)


@pytest.mark.parametrize("later", [SECOND, OTHER_JOB])
def test_it_is_over_when_another_stay_has_begun_since(later: Stay) -> None:
    assert is_over([started(FIRST), started(later)], FIRST)


def test_it_is_over_when_the_same_job_is_further_on_though_nothing_was_heard_of_it() -> None:
    assert is_over([started(SECOND)], FIRST)


def test_a_job_of_a_chain_that_leaves_at_once_takes_nothing_from_the_one_at_work() -> None:
    lines = [started(FIRST), ended(OTHER_JOB, Ending.CANCELLED)]
    assert holder(lines) == FIRST
    assert not is_over(lines, FIRST)
    assert is_over(lines, OTHER_JOB)


@pytest.mark.parametrize(
    ("told", "ending"),
    [
        ([], None),
        ([started(OTHER_JOB), ended(OTHER_JOB, Ending.CANCELLED)], None),
        ([started(FIRST), asked(FIRST, Cause.ASKED), ended(FIRST, Ending.GAVE_UP)], Ending.GAVE_UP),
        ([ended(FIRST, Ending.CANCELLED)], Ending.CANCELLED),
        ([started(FIRST), ended(FIRST, Ending.REQUEUED), started(SECOND)], None),
        ([started(FIRST), asked(FIRST, Cause.CANCELLED), started(SECOND)], None),
    ],
)
def test_how_a_job_ended_is_what_its_last_agent_has_told(told: list[LoggedEvent], ending: Ending | None) -> None:
    assert ending_of(told, FIRST.job_id) is ending


def test_a_job_that_was_killed_soon_after_its_cancellation_was_cancelled() -> None:
    lines = [started(FIRST), asked(FIRST, Cause.ASKED), asked(FIRST, Cause.CANCELLED), line("driver_ended", FIRST)]
    assert ending_of(lines, FIRST.job_id) is Ending.CANCELLED
    assert ending_of(lines[:2], FIRST.job_id) is None

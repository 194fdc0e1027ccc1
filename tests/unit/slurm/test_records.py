"""When the agents of a stay's other nodes know that it is over."""

from __future__ import annotations

import pytest

from launcher.event_log import LoggedEvent
from launcher.slurm.records import Stay, is_over

FIRST, SECOND, OTHER_JOB = Stay("7", 0), Stay("7", 1), Stay("8", 0)


def started(stay: Stay) -> LoggedEvent:
    return line("agent_started", stay)


def ended(stay: Stay) -> LoggedEvent:
    return line("agent_ended", stay)


def line(event: str, stay: Stay) -> LoggedEvent:
    return LoggedEvent({"event": event, "job_id": stay.job_id, "restarts": stay.restarts}, where="here")


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

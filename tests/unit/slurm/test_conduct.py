"""What an agent does next: every situation a run can be in on a cluster, without a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.cli import errors
from launcher.slurm import conduct
from launcher.slurm.conduct import Ending, Exit, Facts, Step, after_predecessor, next_step
from launcher.slurm.job_view import Cause

A, B = "e00000-s000000100", "e00001-s000000000"
FRESH = Facts()
RUNNING = Facts(began_at=(A,), position=A, running=True)
STOPPING = replace(RUNNING, stop_sent=True, position=B)
ENDED = replace(RUNNING, running=False, exit_code=0, position=B)
NEVER = [cause for cause in Cause if not cause.may_requeue]


def stopping(cause: Cause, **facts: object) -> Facts:
    return replace(STOPPING, cause=cause, **facts)  # type: ignore[arg-type]


def ended(code: int, cause: Cause | None = None, **facts: object) -> Facts:
    return replace(ENDED, exit_code=code, cause=cause, **facts)  # type: ignore[arg-type]


def test_a_driver_is_started_and_then_left_alone() -> None:
    assert next_step(FRESH) is Step.START
    assert next_step(RUNNING) is None


def test_a_signal_stops_the_driver_before_slurm_is_asked_why() -> None:
    signalled = replace(RUNNING, signalled=True)
    assert next_step(signalled) is Step.STOP
    assert next_step(replace(signalled, stop_sent=True)) is Step.ASK


def test_the_driver_is_asked_to_stop_once_however_many_signals_come() -> None:
    assert next_step(stopping(Cause.ASKED, signalled=True)) is Step.ASK
    assert next_step(stopping(Cause.ASKED)) is None


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.may_requeue])
def test_it_is_queued_again_as_soon_as_all_is_saved_though_the_driver_still_runs(cause: Cause) -> None:
    assert next_step(stopping(cause)) is None
    assert next_step(stopping(cause, saved=True)) is Step.REQUEUE
    assert next_step(stopping(cause, saved=True, requeued=True)) is None


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.may_requeue])
@pytest.mark.parametrize("code", [3, 1, -9])
def test_it_is_queued_again_even_if_the_driver_died_while_stopping(cause: Cause, code: int) -> None:
    assert next_step(ended(code, cause)) is Step.REQUEUE
    assert next_step(ended(code, cause, requeued=True)) == Exit(Ending.REQUEUED, 0)


@pytest.mark.parametrize("cause", NEVER)
@given(saved=st.booleans(), running=st.booleans(), code=st.sampled_from([0, 1, 2, 3, 5, -9]), new=st.booleans())
def test_nothing_makes_it_requeue_what_others_have_decided(
    cause: Cause, saved: bool, running: bool, code: int, new: bool
) -> None:
    facts = Facts((A,), B if new else A, running, None if running else code, cause=cause, stop_sent=True, saved=saved)
    assert next_step(facts) is not Step.REQUEUE


def test_a_run_that_was_done_when_the_signal_came_is_done() -> None:
    assert next_step(ended(0, Cause.PREEMPTION_AHEAD)) == Exit(Ending.DONE, 0)
    assert next_step(ended(0, signalled=True)) == Exit(Ending.DONE, 0)


@pytest.mark.parametrize(
    ("cause", "end"),
    [
        (Cause.CANCELLED, Exit(Ending.CANCELLED, 3)),
        (Cause.REQUEUED, Exit(Ending.REQUEUED, 0)),
        (Cause.PREEMPTED, Exit(Ending.STOPPED, 3)),
        (Cause.ENDED, Exit(Ending.STOPPED, 3)),
    ],
)
def test_how_it_ends_tells_who_decided(cause: Cause, end: Exit) -> None:
    assert next_step(ended(3, cause)) == end


def test_slurms_refusal_to_requeue_leaves_it_stopped_and_resumable() -> None:
    assert next_step(ended(3, Cause.ASKED, requeued=False)) == Exit(Ending.STOPPED, 3)


def test_a_driver_that_was_killed_starts_again_in_place_until_three_attempts_were_in_vain() -> None:
    assert next_step(ended(-9)) is Step.START
    assert next_step(ended(-9, position=A, began_at=(A,))) is Step.START
    assert next_step(ended(-9, position=A, began_at=(A, A))) is Step.START
    assert next_step(ended(-9, position=A, began_at=(A, A, A))) == Exit(Ending.GAVE_UP, 1)


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.may_requeue])
def test_when_time_is_up_it_is_queued_again_from_the_checkpoint_that_stands(cause: Cause) -> None:
    assert next_step(stopping(cause, last_call=True)) is Step.REQUEUE
    assert next_step(stopping(cause, last_call=True, requeued=True)) is None
    assert next_step(stopping(cause, last_call=True, began_at=(B, B, B))) is None


@pytest.mark.parametrize("cause", NEVER)
def test_that_time_is_up_brings_back_nothing_that_others_have_ended(cause: Cause) -> None:
    assert next_step(stopping(cause, last_call=True)) is not Step.REQUEUE


def test_slurm_is_asked_again_until_it_answers_with_a_pause_after_each_try() -> None:
    for facts in (stopping(Cause.UNKNOWN), ended(3, Cause.UNKNOWN)):
        assert next_step(replace(facts, unreached=True)) is None
        assert next_step(facts) is Step.ASK
    assert next_step(ended(3, Cause.UNKNOWN, unreached=True, given_up_on=True)) == Exit(Ending.STOPPED, 3)


def test_a_request_to_requeue_that_slurm_has_not_heard_is_made_again_after_a_pause() -> None:
    for facts in (stopping(Cause.ASKED, saved=True), ended(3, Cause.ASKED)):
        assert next_step(replace(facts, unreached=True)) is None
        assert next_step(facts) is Step.REQUEUE
    assert next_step(ended(3, Cause.ASKED, given_up_on=True)) == Exit(Ending.STOPPED, 3)


def test_nodes_that_do_not_come_together_are_tried_again_in_place_until_three_attempts_were_in_vain() -> None:
    assert next_step(ended(4, position=A, began_at=(A, A))) is Step.START
    assert next_step(ended(4, position=A, began_at=(A, A, A))) == Exit(Ending.GAVE_UP, 1)
    assert next_step(ended(4, Cause.ASKED)) is Step.REQUEUE


@pytest.mark.parametrize("code", [1, 2, 5])
def test_a_driver_that_failed_is_not_started_again(code: int) -> None:
    assert next_step(ended(code)) == Exit(Ending.FAILED, code)


def test_a_driver_that_somebody_else_stopped_stays_so() -> None:
    assert next_step(ended(3)) == Exit(Ending.STOPPED, 3)


def test_attempts_in_vain_are_counted_over_requeues_and_progress_starts_the_count_anew() -> None:
    assert next_step(Facts(began_at=("", "", ""), position="")) == Exit(Ending.GAVE_UP, 1)
    assert next_step(Facts(began_at=("", "", ""), position=A)) is Step.START
    assert next_step(Facts(began_at=("", A, A, B, A), position=A)) is Step.START


def test_the_third_stop_in_vain_is_not_queued_again() -> None:
    vain = replace(STOPPING, began_at=(A, A, A), position=A, saved=True, cause=Cause.TIME_LIMIT_AHEAD)
    assert next_step(vain) is None
    assert next_step(replace(vain, running=False, exit_code=3)) == Exit(Ending.GAVE_UP, 1)
    assert next_step(replace(vain, position=B)) is Step.REQUEUE


def test_a_superseded_driver_is_ended_at_once_and_the_agent_leaves() -> None:
    assert next_step(replace(RUNNING, superseded=True)) is Step.KILL
    assert next_step(ended(-9, superseded=True)) == Exit(Ending.SUPERSEDED, 1)


def test_a_driver_that_does_not_stop_is_ended_and_the_job_queued_again() -> None:
    assert next_step(stopping(Cause.ASKED, overdue=True)) is Step.KILL
    assert next_step(ended(-9, Cause.ASKED, overdue=True)) is Step.REQUEUE


def test_exit_codes_are_those_of_the_command() -> None:
    codes = (conduct.DRIVER_DONE, conduct.DRIVER_STOPPED, conduct.DRIVER_NOT_UP)
    assert codes == (errors.DONE, errors.STOPPED, errors.NOT_UP)


def test_a_chain_ends_where_nothing_may_follow_and_goes_on_after_everything_else() -> None:
    assert {ending: leave.code for ending in Ending if (leave := after_predecessor(ending))} == {
        Ending.DONE: 0,
        Ending.CANCELLED: 3,
        Ending.GAVE_UP: 1,
    }
    assert after_predecessor(None) is None

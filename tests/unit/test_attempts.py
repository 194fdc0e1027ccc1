"""What follows an attempt."""

from __future__ import annotations

import pytest

from launcher.attempts import Again, Attempt, Finish, GiveUp, Loss, RunFailedError, after, refuse_in_vain
from launcher.config import Run
from launcher.coordinator import Done, Stop
from launcher.plan import Position
from tests.unit.sample_jobs import make_plan

HERE, FURTHER = Position(1, 64), Position(2)
LOST = Loss("rank 1 died", rank=1, host="node7")


def lost(start: Position = HERE, reached: Position = HERE) -> Attempt:
    return Attempt(start, reached, LOST)


@pytest.mark.parametrize("outcome", [Done(), Stop("received SIGTERM", HERE)])
def test_a_run_that_is_done_or_was_asked_to_stop_is_over(outcome: Stop | Done) -> None:
    assert after([lost(), lost(), Attempt(HERE, HERE, outcome)], without_progress=3) == Finish(outcome)


def test_a_resize_goes_on_at_once() -> None:
    stop = Stop("2 more workers", FURTHER, resize=True)
    assert after([Attempt(HERE, FURTHER, stop)], without_progress=1) == Again()


def test_an_error_that_would_come_again_ends_the_run_at_once() -> None:
    error = ValueError("no such class")
    assert after([Attempt(HERE, FURTHER, error)], without_progress=3) == GiveUp(error)


def test_losses_are_made_good_as_often_as_something_was_saved_in_between() -> None:
    attempts = [lost(Position(n), Position(n + 1)) for n in range(50)]
    assert after(attempts, without_progress=1) == Again()


def test_attempts_in_vain_count_only_in_a_row() -> None:
    attempts = [lost(), lost(), lost(HERE, FURTHER), lost(FURTHER, FURTHER), lost(FURTHER, FURTHER)]
    assert after(attempts, without_progress=3) == Again()


def test_a_checkpoint_that_broke_in_between_is_no_progress() -> None:
    assert isinstance(after([lost(FURTHER, HERE)], without_progress=1), GiveUp)


def test_after_the_last_attempt_in_vain_the_run_says_what_happened_each_time() -> None:
    other = Attempt(HERE, HERE, Loss("the node of ranks 0 and 1 is gone"))
    decision = after([lost(HERE, FURTHER), lost(), other, lost()], without_progress=3)
    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, RunFailedError)
    assert str(decision.error) == (
        "3 attempts in a row have saved nothing beyond epoch 1, sample 64:\n"
        "  1. rank 1 died\n  2. the node of ranks 0 and 1 is gone\n  3. rank 1 died\n"
        "the last checkpoint stands; when the cause is mended, resume with --try-again"
    )


PLAN = make_plan()
STARTED = {"event": "attempt_started", "plan_fingerprint": PLAN.fingerprint, "epoch": 1, "samples_done": 64}
FAILED = {"event": "run_failed"}


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([STARTED, FAILED] * 2, id="too few"),
        pytest.param([STARTED] * 2 + [{"event": "checkpoint_saved"}, STARTED], id="something was saved in between"),
        pytest.param([STARTED] * 2 + [{"event": "run_stopped"}, STARTED], id="one was stopped"),
        pytest.param([STARTED] * 2 + [{**STARTED, "samples_done": 128}, STARTED], id="one began elsewhere"),
        pytest.param([{**STARTED, "plan_fingerprint": "old"}] * 3, id="the plan has changed since"),
    ],
)
def test_a_start_is_not_refused_for_other_attempts(events: list[dict[str, object]]) -> None:
    refuse_in_vain(events, PLAN, HERE, Run(attempts_without_progress=3))


def test_a_start_is_refused_after_too_many_in_vain() -> None:
    with pytest.raises(RunFailedError, match=r"the last 3 attempts .* epoch 1, sample 64.*--try-again"):
        refuse_in_vain([STARTED, FAILED] * 3, PLAN, HERE, Run(attempts_without_progress=3))

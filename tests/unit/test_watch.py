"""Who is stuck."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.plan import Position
from launcher.watch import Beat, Watch

TIMEOUT_S, COMING_UP_S = 10.0, 30.0
BEAT = Beat(
    rank=0,
    host="node7",
    pid=42,
    node="n7",
    position=Position(1, 64),
    steps_begun=5,
    activity=3,
    doing="forward (model.py:7)",
    waits=False,
)


def watch(world_size: int) -> Watch:
    return Watch(world_size, timeout_s=TIMEOUT_S, coming_up_s=COMING_UP_S, now_s=100.0)


def stuck_ranks(beats: list[Beat], *, silent: tuple[int, ...] = ()) -> list[int]:
    """Who is found stuck where these beats came, and came again unchanged for longer than the timeout."""
    watching = watch(len(beats))
    for second in range(101, 113):
        for beat in beats:
            if beat.rank not in silent or second == 101:
                watching.hear(beat, second)
        if second < 101 + TIMEOUT_S:
            assert watching.stuck(second) == ()
    return [stuck.rank for stuck in watching.stuck(112)]


def test_nobody_is_stuck_while_somebody_moves() -> None:
    watching = watch(2)
    for second in range(101, 200):
        watching.hear(BEAT, second)
        watching.hear(replace(BEAT, rank=1, steps_begun=second), second)
        assert watching.stuck(second) == ()


def test_calls_to_the_coordinator_are_motion_too() -> None:
    watching = watch(1)
    for second in range(101, 200):
        watching.hear(replace(BEAT, activity=second), second)
        assert watching.stuck(second) == ()


def test_a_silent_rank_is_stuck_although_the_others_give_signs_of_life() -> None:
    waiting = [replace(BEAT, rank=rank, waits=True) for rank in (0, 2)]
    assert stuck_ranks([waiting[0], replace(BEAT, rank=1), waiting[1]], silent=(1,)) == [1]


def test_a_silent_rank_is_stuck_even_if_the_others_move() -> None:
    watching = watch(2)
    watching.hear(replace(BEAT, rank=1), 101)
    for second in range(101, 112):
        watching.hear(replace(BEAT, steps_begun=second), second)
    assert [stuck.rank for stuck in watching.stuck(112)] == [1]


@pytest.mark.parametrize(
    ("steps_and_waits", "stuck"),
    [
        ([(6, True), (5, False), (6, True)], [1]),  # behind: it never began the step in which the others wait
        ([(5, True), (5, False)], [1]),  # within the same step, but not in its collective
        ([(5, False), (4, True)], [1]),  # the others have gone past the collective in which this one hangs
        ([(5, True), (5, True)], [0, 1]),  # a collective that never ends
        ([(5, False), (5, False)], [0, 1]),
        ([(6, True), (5, False), (5, False)], [1, 2]),
    ],
)
def test_who_holds_the_others_up_is_stuck(steps_and_waits: list[tuple[int, bool]], stuck: list[int]) -> None:
    beats = [replace(BEAT, rank=r, steps_begun=s, waits=w) for r, (s, w) in enumerate(steps_and_waits)]
    assert stuck_ranks(beats) == stuck


def test_a_rank_that_never_comes_up_is_late_and_those_who_wait_for_it_are_not_stuck() -> None:
    watching = watch(2)
    for second in range(101, 130):
        watching.hear(BEAT, second)
        assert watching.stuck(second) == ()
    (late,) = watching.stuck(130)
    assert (late.rank, late.beat, late.what) == (1, None, "rank 1 has not come up within 30 s")


def test_rank_process_host_and_place_are_named() -> None:
    watching = watch(1)
    watching.hear(BEAT, 101)
    for second in range(102, 112):
        watching.hear(BEAT, second)
    (still,) = watching.stuck(111)
    where = "in the lease from epoch 1, sample 64"
    assert still.what == f"rank 0 (process 42 on node7) has stood still for 10 s, {where}, in forward (model.py:7)"
    (silent,) = watching.stuck(121)
    assert silent.what == f"rank 0 (process 42 on node7) has given no sign of life for 10 s, {where}"
    assert replace(BEAT, position=None).where == "before its first step"

"""Which checkpoints may go."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.paths import CheckpointName
from launcher.plan import Position
from launcher.retention import to_delete

positions = st.builds(Position, st.integers(0, 8), st.sampled_from([0, 64, 128]))
names = st.sets(st.builds(CheckpointName, positions, st.integers(0, 2)))


def test_last_ones_and_phase_boundaries_stay() -> None:
    names = [CheckpointName(Position(epoch)) for epoch in range(1, 9)]
    gone = to_delete(names, keep=[Position(2), Position(5), Position(20)], keep_last=2)
    assert [name.position.epoch for name in gone] == [1, 3, 4, 6]


def test_of_a_position_saved_twice_the_later_stays() -> None:
    first, second = (CheckpointName(Position(1), replay) for replay in (0, 1))
    assert to_delete([second, first], keep=[Position(1)], keep_last=1) == [first]


@settings(deadline=None)
@given(names, st.sets(positions), st.integers(1, 4))
def test_what_stays_covers_the_last_positions_and_those_kept_for_good(
    names: set[CheckpointName], keep: set[Position], keep_last: int
) -> None:
    gone = to_delete(names, keep=keep, keep_last=keep_last)
    staying = names - set(gone)
    saved = sorted({name.position for name in names})
    wanted = {*saved[-keep_last:], *(keep & set(saved))}
    assert len(staying) == len(wanted)
    assert {name.position for name in staying} == wanted
    assert not names or max(names) in staying
    assert to_delete(staying, keep=keep, keep_last=keep_last) == []
    assert gone == sorted(gone)

"""Which checkpoints may go. Pure."""

from __future__ import annotations

from collections.abc import Collection

from launcher.paths import CheckpointName
from launcher.plan import Position


def to_delete(names: Collection[CheckpointName], *, keep: Collection[Position], keep_last: int) -> list[CheckpointName]:
    """Those of a run's sound checkpoints that may go, oldest first.

    The last `keep_last` positions stay, and those in `keep`: the phase boundaries. Of a position that was
    saved more than once the last replay stays.
    """
    assert keep_last >= 1, keep_last
    last_replay = {name.position: name for name in sorted(names)}
    last_positions = sorted(last_replay)[-keep_last:]
    staying = {last_replay[position] for position in (*last_positions, *keep) if position in last_replay}
    return sorted(set(names) - staying)

"""Which worker is stuck, told from the signs of life of all.

Ranks train in step, so one that is stuck soon holds up the others, each of them in a collective. Nobody is stuck as
long as anybody moves; when nobody does, it is those who are silent, else those who have begun fewest steps and are not
in a collective themselves.

Times are seconds of the caller's clock, always the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan import Position


@dataclass(frozen=True)
class Beat:
    """A worker's sign of life, sent by a thread of its own every few seconds."""

    rank: int
    host: str
    pid: int
    node: str
    """By which the process can be reached."""
    position: Position | None
    """Where it last asked the coordinator for a directive; None before the first."""
    steps_begun: int
    """Of training, in this process; equal on all ranks that keep step."""
    activity: int
    """Anything that only grows while the rank moves."""
    doing: str
    """Where its training thread stands, as "all_reduce (distributed_c10d.py:3012)"."""
    waits: bool
    """Whether that is a collective: it may only be waiting for another rank."""

    @property
    def who(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"

    @property
    def where(self) -> str:
        if self.position is None:
            return "before its first step"
        return f"in the lease from epoch {self.position.epoch}, sample {self.position.samples_done}"


@dataclass(frozen=True)
class Stuck:
    """A rank to be ended. `beat` is its last sign of life; None if it never gave one."""

    rank: int
    beat: Beat | None
    what: str


@dataclass
class _Heard:
    beat: Beat
    at_s: float
    moved_at_s: float


class Watch:
    """Hears the beats of `world_size` ranks from `now_s` on.

    `timeout_s` without motion is too long, and so is `coming_up_s` before a rank's first beat.
    """

    def __init__(self, world_size: int, *, timeout_s: float, coming_up_s: float, now_s: float):
        self._timeout_s = timeout_s
        self._coming_up_s = coming_up_s
        self._began_s = now_s
        self._world_size = world_size
        self._heard: dict[int, _Heard] = {}

    @property
    def beats(self) -> dict[int, Beat]:
        """The last one of each rank that has given any."""
        return {rank: heard.beat for rank, heard in self._heard.items()}

    def hear(self, beat: Beat, now_s: float) -> None:
        """Take note of a sign of life."""
        before = self._heard.get(beat.rank)
        moved = before is None or _progress(beat) != _progress(before.beat)
        self._heard[beat.rank] = _Heard(beat, now_s, now_s if moved or before is None else before.moved_at_s)

    def stuck(self, now_s: float) -> tuple[Stuck, ...]:
        """The ranks to be ended, in order; empty as long as all is well."""
        quiet = [self._quiet(rank, now_s) for rank in range(self._world_size)]
        if any(quiet):
            return tuple(filter(None, quiet))
        since_s = now_s - self._timeout_s
        if len(self._heard) < self._world_size or any(heard.moved_at_s > since_s for heard in self._heard.values()):
            return ()
        return tuple(self._still(beat) for beat in _suspects([beat for _, beat in sorted(self.beats.items())]))

    def _quiet(self, rank: int, now_s: float) -> Stuck | None:
        heard = self._heard.get(rank)
        if heard is None and now_s - self._began_s >= self._coming_up_s:
            return Stuck(rank, None, f"rank {rank} has not come up within {self._coming_up_s:g} s")
        if heard is None or now_s - heard.at_s < self._timeout_s:
            return None
        what = f"{heard.beat.who} has given no sign of life for {self._timeout_s:g} s, {heard.beat.where}"
        return Stuck(rank, heard.beat, what)

    def _still(self, beat: Beat) -> Stuck:
        what = f"{beat.who} has stood still for {self._timeout_s:g} s, {beat.where}, in {beat.doing}"
        return Stuck(beat.rank, beat, what)


def _progress(beat: Beat) -> tuple[int, int]:
    return beat.steps_begun, beat.activity


def _suspects(beats: list[Beat]) -> list[Beat]:
    """Who holds the others up: all of them, if none differs."""
    fewest = min(beat.steps_begun for beat in beats)
    behind = [beat for beat in beats if beat.steps_begun == fewest]
    return [beat for beat in behind if not beat.waits] or behind

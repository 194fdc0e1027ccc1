"""A run under Ray Train: one attempt after the other, with the workers that there are, until it is over."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from launcher.attempts import Again, Attempt, Finish, GiveUp, Loss, after
from launcher.coordinator import Done, Stop
from launcher.events import Event, StopRequested, WorkerLost, WorkersAwaited
from launcher.executors.private_ray import PrivateRay
from launcher.executors.ray_pipe import RayLostError
from launcher.paths import temporary
from launcher.planning import PlanError, feasible_world
from launcher.run_setup import RunSetup, attempt_started, next_attempt

_LOOK_EVERY_S = 1.0


class RayRun:
    """Carries a run out, whatever becomes of workers, nodes and Ray."""

    def __init__(
        self,
        setup: RunSetup,
        *,
        use_gpu: bool,
        logs: Path,
        meeting_dir: Path | None,
        on_event: Callable[[Event], None],
        stop_reasons: list[str],
    ):
        """`meeting_dir` is a directory that all nodes see; None if there is one node alone.

        `stop_reasons` grows where a signal asks for a stop.
        """
        self._setup = setup
        self._use_gpu = use_gpu
        self._logs = logs
        self._meeting_dir = meeting_dir
        self._on_event = on_event
        self._stop_reasons = stop_reasons
        self._stops_told = 0
        self._attempts: list[Attempt] = []

    def carry_out(self, bring_up: Callable[[], AbstractContextManager[PrivateRay]]) -> Stop | Done:
        """How it ended. `bring_up` gives a new Ray, for the case that one is lost.

        Raises the error that ended the run: a worker's if it is one of ours, else RunFailedError.
        """
        while True:
            try:
                with bring_up() as home:
                    return self._go_on(home)
            except RayLostError as lost:  # By now it has ended, and all its workers here.
                if (outcome := self._after(Loss(str(lost)))) is not None:
                    return outcome

    def _go_on(self, home: PrivateRay) -> Stop | Done:
        """Attempt as often as it takes. Raises RayLostError if that needs another Ray."""
        while (outcome := self._after(self._attempt(home))) is None:
            pass
        return outcome

    def _attempt(self, home: PrivateRay) -> Stop | Done | Loss | Exception:
        world_size = self._await_workers(home)
        if isinstance(world_size, Stop):
            return world_size
        changed = world_size != self._setup.plan.world_size
        if changed:
            self._setup = next_attempt(self._setup, world_size=world_size)
        if changed or self._attempts:
            self._on_event(attempt_started(self._setup))
        # Of a name that no other attempt has ever had: what an earlier one has written there would mislead.
        meeting = (self._meeting_dir or home.temp_dir) / f"{home.temp_dir.name}-{len(self._attempts)}"
        meeting_file = temporary(meeting, pid=os.getpid())
        try:
            ended: Stop | Done | Loss | Exception = home.ask(
                "attempt",
                *(self._setup, meeting_file, self._use_gpu, self._logs),
                on_letter=lambda letter: self._on_event(pickle.loads(letter)),
                next_order=self._next_stop,
            )
        finally:
            meeting_file.unlink(missing_ok=True)
        return ended

    def _after(self, ended: Stop | Done | Loss | Exception) -> Stop | Done | None:
        """Take down what an attempt came to; the run's outcome, or None if another attempt is to follow."""
        start = self._setup.start
        if isinstance(ended, Loss):
            self._on_event(WorkerLost(what=ended.what, rank=ended.rank, host=ended.host))
        if isinstance(ended, (Loss, Stop)):
            self._setup = next_attempt(self._setup, world_size=self._setup.plan.world_size)
        self._attempts.append(Attempt(start, self._setup.start, ended))
        if isinstance(ended, Loss) and (reason := self._next_stop(again=True)) is not None:
            return Stop(reason, self._setup.start)
        match after(self._attempts, without_progress=self._setup.job.run.attempts_without_progress):
            case Finish(outcome):
                return outcome
            case GiveUp(error):
                raise error
            case Again():
                return None

    def _next_stop(self, *, again: bool = False) -> str | None:
        """A reason to stop that has not been told; or, `again`, the one that has."""
        if self._stops_told < len(self._stop_reasons):
            reason = self._stop_reasons[self._stops_told]
            self._stops_told += 1
            self._on_event(StopRequested(reason))
            return reason
        return self._stop_reasons[0] if again and self._stop_reasons else None

    def _await_workers(self, home: PrivateRay) -> int | Stop:
        """The number of workers to go on with; a Stop if one is asked for, or if there are too few for too long."""
        run = self._setup.job.run
        deadline = time.monotonic() + run.stall_timeout_s
        told = False
        while (reason := self._next_stop(again=True)) is None:
            room = home.ask("room", self._use_gpu)
            try:
                return feasible_world(self._setup.job, num_samples=self._setup.plan.num_samples, available=room)
            except PlanError as missing:
                if time.monotonic() > deadline:
                    return Stop(f"waited for {run.stall_timeout_s:g} s, but {missing}", self._setup.start)
                if not told:
                    self._on_event(WorkersAwaited(missing=str(missing), within_s=run.stall_timeout_s))
                    told = True
            time.sleep(_LOOK_EVERY_S)
        return Stop(reason, self._setup.start)

"""A run's processes without Ray: a driver that leads forked ranks through pipes, and ends all of them if one is lost.

What they carry out is the product's own: run directory, setup, Coordinator, run_worker, checkpoints, a gloo group.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from launcher import failpoints
from launcher.attempts import refuse_in_vain
from launcher.coordinator import Acknowledgement, Agreement, Directive, Done, Stop
from launcher.event_log import EventLog, read_events
from launcher.events import Event, Progress
from launcher.executors.ray_pipe import signals_blocked
from launcher.plan import Position
from launcher.run_directory import RunDirectory, open_run_directory
from launcher.run_setup import RunSetup, attempt_started, check_job, next_attempt, prepare_run
from launcher.signals import stop_on_signal
from launcher.worker_process import Place, run_worker
from tests.faults.attempts import DRIVER, Attempt, Kill, StopRequest, Traces
from tests.faults.ledger import keep_ledger

SECONDS_PER_TURN = 60.0
"""The coordinator's clock here: it goes by directives, so that checkpoints by time come at the same places always."""
_BEAT_S = 0.05
"""So that a dead driver of whom nobody can tell is soon given up."""
_COLLECTIVE_TIMEOUT_S = 60.0
_PR_SET_PDEATHSIG = 1
_FORKING = multiprocessing.get_context("fork")


class RankLostError(RuntimeError):
    """A rank died, or failed."""


def drive(attempt: Attempt) -> tuple[Stop | Done | None, str]:
    """The driver's life: how the attempt ended, or else why not."""
    _die_with_parent()
    with signals_blocked():  # In the ranks for good, as in Ray's processes.
        ranks = [_start(attempt, rank) for rank in range(attempt.world_size)]
    failpoints.arm(_Passages(attempt.traces, DRIVER, attempt.kill))
    stop_reasons: list[str] = []
    try:
        with stop_on_signal(stop_reasons.append), open_run_directory(attempt.root, beat_s=_BEAT_S) as directory:
            setup = _prepare(attempt, directory)
            if setup.start == setup.plan.end and directory.paths.model.is_file():
                return Done(), ""
            refuse_in_vain(read_events(directory.paths.events), setup.plan, setup.start, setup.job.run)
            directory.events.append(attempt_started(setup).to_json())
            attempt.traces.begin(setup.start, setup.plan.world_size)
            return _lead(_Desk(setup, directory.events, attempt.stop, stop_reasons), setup, ranks), ""
    except Exception:
        return None, traceback.format_exc()
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()


def _prepare(attempt: Attempt, directory: RunDirectory) -> RunSetup:
    job, plan, data = check_job(attempt.job, source="the test's job")
    setup = prepare_run(job, plan, data, paths=directory.paths, accept_changes=False, claim=directory.claim)
    return setup if attempt.workers is None else next_attempt(setup, world_size=attempt.workers)


@dataclass
class _Rank:
    number: int
    process: Any
    connection: Connection
    end: Stop | Done | None = None


def _start(attempt: Attempt, number: int) -> _Rank:
    ours, theirs = multiprocessing.Pipe()
    process = _FORKING.Process(target=_live, args=(attempt, number, theirs))
    process.start()
    theirs.close()
    return _Rank(number, process, ours)


def _lead(desk: _Desk, setup: RunSetup, ranks: list[_Rank]) -> Stop | Done:
    """Answer the ranks' questions until all have ended alike. Raises RankLostError as soon as one is lost."""
    asking = {rank.connection: rank for rank in ranks}
    for rank in ranks:
        rank.connection.send(setup)
    while asking:
        for connection in wait(list(asking)):
            assert isinstance(connection, Connection)
            rank = asking[connection]
            try:
                what, content = connection.recv()
            except (EOFError, ConnectionResetError):
                rank.process.join()
                raise RankLostError(f"rank {rank.number} died with exit code {rank.process.exitcode}") from None
            if what == "failed":
                raise RankLostError(f"rank {rank.number} failed\n{content}")
            if what == "ended":
                rank.end = content
                del asking[connection]
            else:
                connection.send(desk.answer(what, content))
    ends = {rank.end for rank in ranks}
    assert len(ends) == 1, f"ranks ended differently: {ends}"
    return next(end for end in ends if end is not None)


class _Desk:
    """The coordinator, and what the ranks ask of it."""

    def __init__(self, setup: RunSetup, events: EventLog, stop: StopRequest | None, stop_reasons: list[str]):
        """`stop_reasons` grows where a signal asks for a stop."""
        self._coordinator = setup.coordinator()
        self._events = events
        self._stop = stop
        self._stop_reasons = stop_reasons
        self._askers: Counter[int] = Counter()

    def answer(self, what: str, arguments: dict[str, Any]) -> object:
        """The answer to a question, or the error that it met."""
        while self._stop_reasons:
            self._coordinator.request_stop(self._stop_reasons.pop())
        try:
            return getattr(self, what)(**arguments)
        except Exception as error:
            return error

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        if self._stop and (self._stop.turn, self._stop.asker) == (turn, self._askers[turn]):
            ask = self._coordinator.request_resize if self._stop.resize else self._coordinator.request_stop
            ask("the test asked for it")
        self._askers[turn] += 1
        return self._coordinator.next(
            rank=rank, turn=turn, position=position, samples_per_s=samples_per_s, now_s=turn * SECONDS_PER_TURN
        )

    def note_save(self, *, seconds: float) -> None:
        self._coordinator.note_save(seconds)

    def acknowledge(self, *, acknowledgement: Acknowledgement) -> None:
        self._coordinator.acknowledge(acknowledgement)

    def agreement(self, *, turn: int) -> Agreement:
        return self._coordinator.agreement(turn)

    def emit(self, *, event: Event) -> None:
        if not isinstance(event, Progress):
            self._events.append(event.to_json())


def _live(attempt: Attempt, rank: int, connection: Connection) -> None:
    """A rank's life."""
    _die_with_parent()
    failpoints.arm(_Passages(attempt.traces, rank, attempt.kill))
    keep_ledger(attempt.traces.ledger(rank))
    try:
        setup: RunSetup = connection.recv()
    except EOFError:  # The driver had nothing to do for us, or is gone.
        return
    try:
        connection.send(("ended", _work(setup, rank, attempt.traces, _PipeLink(connection))))
    except BaseException:
        connection.send(("failed", traceback.format_exc()))


def _work(setup: RunSetup, rank: int, traces: Traces, link: _PipeLink) -> Stop | Done:
    world_size = setup.plan.world_size
    place = Place(rank, world_size, torch.device("cpu"))
    if world_size == 1:
        return run_worker(setup, place, link)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{traces.meeting}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=_COLLECTIVE_TIMEOUT_S),
    )
    end = run_worker(setup, place, link)
    dist.destroy_process_group()
    return end


class _PipeLink:
    """Reaches the coordinator through a pipe to the driver, from any thread."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._turn = threading.Lock()

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        directive: Directive = self._ask("next", rank=rank, turn=turn, position=position, samples_per_s=samples_per_s)
        return directive

    def prefetch(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None, after_s: float
    ) -> None:
        """Not here: the steps are too short."""

    def heed(self, steps_begun: Callable[[], int]) -> None:
        """Who hangs here is the test's to find."""

    def note_save(self, seconds: float) -> None:
        self._ask("note_save", seconds=seconds)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        self._ask("acknowledge", acknowledgement=acknowledgement)

    def agreement(self, turn: int) -> Agreement:
        agreement: Agreement = self._ask("agreement", turn=turn)
        return agreement

    def emit(self, event: Event) -> None:
        self._ask("emit", event=event)

    def _ask(self, what: str, **arguments: object) -> Any:
        with self._turn:
            self._connection.send((what, arguments))
            answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Passages:
    """Writes down every failpoint that a process comes past, and ends the process at the one of `kill`."""

    def __init__(self, traces: Traces, rank: int, kill: Kill | None):
        self._traces = traces
        self._kill = kill if kill is not None and kill.rank == rank else None
        self._file = os.open(traces.passages(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._counts: Counter[str] = Counter()

    def pass_by(self, name: str, rank: int) -> None:
        os.write(self._file, f"{name}\n".encode())
        self._counts[name] += 1
        if self._kill and (name, self._counts[name]) == (self._kill.point, self._kill.occurrence):
            self._traces.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _die_with_parent() -> None:
    """Be killed when the parent is gone, as Ray's processes are: an orphan must not write beside the next attempt."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

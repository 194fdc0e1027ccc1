"""The agent of a job's first node: has the signals, starts and stops the driver, and has the job queued again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

from launcher.durable import make_directory
from launcher.ownership import State, state_of
from launcher.paths import RunPaths, claim_number
from launcher.run_directory import open_run_directory, read_owner
from launcher.slurm import commands, records, time_left
from launcher.slurm.conduct import DRIVER_STOPPED, Ending, Exit, Facts, Step, next_step
from launcher.slurm.inbox import Inbox
from launcher.slurm.job_view import Cause, cause_of
from launcher.slurm.records import SlurmPaths, Stay
from launcher.slurm.stop_watch import StopWatch

_PR_SET_PDEATHSIG = 1
_TICK_S, _STOPPING_TICK_S = 1.0, 0.1
_STOPPED_WITHIN_S = 900.0
"""From the request to stop to the driver's end, where Slurm sets no earlier one: a lease, a save, Ray's end."""
_HANDOVER_S = 10.0
"""For the driver of an earlier stay to end after this agent has shown itself in the records."""


class HeadAgent:
    """The agent that starts the driver."""

    def __init__(self, root: Path, driver: list[str], *, stay: Stay, lead_s: float, environment: Mapping[str, str]):
        """`driver` is its command, `environment` what it is told besides."""
        self._root = root
        self._paths = SlurmPaths(root)
        self._command = driver
        self._environment = environment
        self._stay = stay
        self._lead_s = lead_s
        self._driver: subprocess.Popen[bytes] | None = None
        self._stop: StopWatch | None = None
        self._records_seen = 0
        _make_run_directory(root)
        make_directory(self._paths.log.parent)
        self._log: IO[bytes] = self._paths.log.open("ab", buffering=0)
        self._facts = Facts()

    def run(self, inbox: Inbox) -> int:
        """Lead the run until it is done, queued again or given up; the exit code for Slurm. `inbox` gives signals."""
        earlier = records.read(self._paths.attempts)
        self._facts = Facts(
            began_at=records.attempts_of(earlier, self._stay.job_id), position=records.newest_checkpoint(self._root)
        )
        self._record("agent_started", nodes=os.environ.get("SLURM_JOB_NODELIST"), host=socket.gethostname())
        self._await_predecessor()
        while not isinstance(step := next_step(self._facts), Exit):
            if step is None:
                self._observe(inbox)
            else:
                self._carry_out(step)
        self._say(f"{step.ending.value}, exit code {step.code}")
        if not self._facts.superseded:  # Else the records are another's by now.
            self._record("agent_ended", ending=step.ending.value, exit_code=step.code)
        return step.code

    def decline(self, cancelled: str) -> int:
        """Leave without a start: the job before this one in a chain was cancelled, and the run with it."""
        self._say(f"Slurm job {cancelled} before this one was cancelled, so this one ends, too")
        self._record("agent_started", nodes=os.environ.get("SLURM_JOB_NODELIST"), host=socket.gethostname())
        self._record("agent_ended", ending=Ending.CANCELLED.value, exit_code=DRIVER_STOPPED)
        return DRIVER_STOPPED

    def _carry_out(self, step: Step) -> None:
        match step:
            case Step.START:
                self._start()
            case Step.STOP:
                self._ask_driver_to_stop()
            case Step.ASK:
                self._ask_slurm()
            case Step.REQUEUE:
                self._requeue()
            case Step.KILL:
                self._kill()

    def _start(self) -> None:
        position = self._facts.position
        attempt = len(self._facts.began_at) + 1
        stay = self._stay
        nodes = os.environ.get("SLURM_JOB_NODELIST", socket.gethostname())
        origin = f"from {position}" if position else "from the beginning"
        self._say(f"--- attempt {attempt} of Slurm job {stay.job_id}, restart {stay.restarts}, on {nodes}, {origin}")
        self._record("driver_started", attempt=attempt, position=position)
        self._driver = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=_shield,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment, **self._end_of_job()},
        )
        self._facts = replace(
            self._facts, running=True, exit_code=None, began_at=(*self._facts.began_at, position), stop_sent=False
        )

    def _end_of_job(self) -> dict[str, str]:
        """For the driver; nothing where Slurm sets no limit or does not answer."""
        job = commands.show_job(self._stay.job_id)
        return {time_left.VARIABLE: str(job.ends_at.timestamp())} if job is not None and job.ends_at else {}

    def _ask_driver_to_stop(self) -> None:
        assert self._driver is not None
        self._stop = StopWatch(RunPaths(self._root).events)
        self._driver.send_signal(signal.SIGTERM)
        self._record("stop_asked")
        self._facts = replace(self._facts, stop_sent=True)

    def _ask_slurm(self) -> None:
        cause = self._cause()
        self._say(f"signalled: {cause.value}")
        self._facts = replace(self._facts, signalled=False, cause=cause)

    def _requeue(self) -> None:
        """Unless the job's fate has been decided meanwhile."""
        cause = self._cause()
        if not cause.may_requeue:
            self._facts = replace(self._facts, cause=cause)
            return
        accepted, words = commands.requeue(self._stay.job_id)
        self._say("queued again" if accepted else f"Slurm does not queue the job again: {words}")
        self._record("requeue_asked", accepted=accepted, answer=words, checkpoint=self._facts.position)
        self._facts = replace(self._facts, requeued=accepted)

    def _kill(self) -> None:
        assert self._driver is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._driver.pid, signal.SIGKILL)
        self._note_end(self._driver.wait())

    def _cause(self) -> Cause:
        job = commands.show_job(self._stay.job_id)
        cause = cause_of(job, restarts=self._stay.restarts, lead_s=self._lead_s, now=datetime.now())
        self._record("slurm_asked", cause=cause.value, job=str(job))
        return cause

    def _observe(self, inbox: Inbox) -> None:
        """Wait until something has happened, and learn what."""
        if inbox.await_signal(within_s=_TICK_S if self._stop is None else _STOPPING_TICK_S):
            self._facts = replace(self._facts, signalled=True)
        if self._driver is not None and (code := self._driver.poll()) is not None:
            self._note_end(code)
        if self._stop is not None and not self._facts.saved and self._stop.is_saved():
            self._facts = replace(self._facts, saved=True, position=records.newest_checkpoint(self._root))
            self._say(f"saved up to {self._facts.position or 'the beginning'}")
        overdue = self._stop is not None and self._stop.seconds > _STOPPED_WITHIN_S
        self._facts = replace(self._facts, overdue=overdue, superseded=self._is_superseded())

    def _note_end(self, code: int) -> None:
        self._driver = None
        self._facts = replace(
            self._facts, running=False, exit_code=code, position=records.newest_checkpoint(self._root)
        )
        if not self._facts.superseded:
            self._record("driver_ended", exit_code=code, position=self._facts.position)

    def _is_superseded(self) -> bool:
        """Whether a later agent has shown itself in the records, which are read when they have changed."""
        size = self._paths.attempts.stat().st_size
        if self._facts.superseded or size == self._records_seen:
            return self._facts.superseded
        self._records_seen = size
        return records.holder(records.read(self._paths.attempts)) != self._stay

    def _await_predecessor(self) -> None:
        """Let the driver of an earlier stay end, whose agent sees that it is superseded: its node may live on without
        Slurm. A driver that is still there after that is told from a dead one by the new driver's own means."""
        deadline = time.monotonic() + _HANDOVER_S
        while time.monotonic() < deadline:
            owner = read_owner(RunPaths(self._root))
            if owner is None or owner.slurm_job_id != os.environ.get("SLURM_JOB_ID") or state_of(owner) is State.GONE:
                return
            time.sleep(_TICK_S / 4)

    def _record(self, event: str, **facts: object) -> None:
        records.append(self._paths.attempts, event, job_id=self._stay.job_id, restarts=self._stay.restarts, **facts)

    def _say(self, words: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._log.write(f"{now} resolute agent: {words}\n".encode())


def _make_run_directory(root: Path) -> None:
    """Make it one before anything of Slurm's lies in it, unless `resolute submit` has. Raises RunDirectoryError."""
    if not any(claim_number(entry.name) for entry in (root.iterdir() if root.is_dir() else ())):
        with open_run_directory(root):
            pass


def _shield() -> None:
    """In the driver, before it begins: it dies with its agent, and user signals, which some ways of tracking a step's
    processes hand to all of them, would kill Ray."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

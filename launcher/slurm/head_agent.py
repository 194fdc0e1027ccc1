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

from launcher.durable import make_directory
from launcher.event_log import EventLogError
from launcher.ownership import State, state_of
from launcher.paths import RunPaths, claim_number
from launcher.run_directory import open_run_directory, read_owner
from launcher.slurm import commands, records, time_left
from launcher.slurm.conduct import Ending, Exit, Facts, Step, next_step
from launcher.slurm.inbox import Inbox
from launcher.slurm.job_view import Cause, cause_of, is_out_of_reach, parse_kill_wait, seconds_to_requeue
from launcher.slurm.records import SlurmPaths, Stay
from launcher.slurm.stop_watch import StopWatch

_PR_SET_PDEATHSIG = 1
_TICK_S, _STOPPING_TICK_S = 1.0, 0.1
_STOPPED_WITHIN_S = 900.0
"""From the request to stop to the driver's end, where Slurm sets no earlier one: a lease, a save, Ray's end."""
_HANDOVER_S = 10.0
"""For the driver of an earlier stay to end after this agent has shown itself in the records."""
_REACHED_AGAIN_S = 5.0
"""Between two tries to reach Slurm's controller."""
_REACHED_WITHIN_S = 300.0
"""For a controller that cannot be reached, once the driver has ended: the nodes wait for it in vain."""
_DECLINED_FOR = {Ending.DONE: "was done", Ending.CANCELLED: "was cancelled", Ending.GAVE_UP: "gave up"}


class HeadAgent:
    """The agent that starts the driver."""

    def __init__(self, root: Path, driver: list[str], *, stay: Stay, lead_s: float):
        """`driver` is its command. Raises RunDirectoryError."""
        self._root = root
        self._paths = SlurmPaths(root)
        self._command = driver
        self._environment: Mapping[str, str] = {}
        self._stay = stay
        self._lead_s = lead_s
        self._driver: subprocess.Popen[bytes] | None = None
        self._stop = StopWatch(RunPaths(root).events)
        self._kill_wait_s = 0.0
        self._asked_to_stop_at_s = self._reach_again_at_s = 0.0
        self._ended_at_s = time.monotonic()
        self._last_call_at_s: float | None = None
        self._records_seen = 0
        _make_run_directory(root)
        make_directory(self._paths.log.parent)
        self._facts = Facts()

    def run(self, inbox: Inbox, *, environment: Mapping[str, str]) -> int:
        """Lead the run until it is done, queued again or given up; the exit code for Slurm.

        `inbox` gives signals, and `environment` is told to the driver besides this process's own.
        """
        self._environment = environment
        earlier = records.read(self._paths.attempts)
        self._facts = Facts(
            began_at=records.attempts_of(earlier, self._stay.job_id), position=records.newest_checkpoint(self._root)
        )
        # Without this line nobody knows that the directory is this agent's: an error here is one.
        self._append("agent_started", nodes=os.environ.get("SLURM_JOB_NODELIST"), host=socket.gethostname())
        self._kill_wait_s = parse_kill_wait(commands.call("scontrol", "show", "config")[1])
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

    def decline(self, leave: Exit, *, after: str) -> int:
        """Leave without a start, as the job `after` which this one follows ended; the exit code for Slurm.

        It does not say that it has started: another job may be at work.
        """
        self._say(f"Slurm job {after} before this one {_DECLINED_FOR[leave.ending]}, so this one ends, too")
        self._record("agent_ended", ending=leave.ending.value, exit_code=leave.code)
        return leave.code

    def fail(self, error: Exception) -> None:
        """Say why this agent ends: the other nodes' agents have no other way to learn that it does."""
        self._say(f"failed: {error}")
        self._record("agent_ended", ending=Ending.FAILED.value, exit_code=1)

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
        self._stop = StopWatch(RunPaths(self._root).events)
        with self._paths.log.open("ab") as log:
            self._driver = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
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
        self._driver.send_signal(signal.SIGTERM)
        self._asked_to_stop_at_s = time.monotonic()
        self._record("stop_asked")
        self._facts = replace(self._facts, stop_sent=True)

    def _ask_slurm(self) -> None:
        cause = self._cause()
        if cause is not self._facts.cause:
            self._say(f"signalled: {cause.value}")
        self._facts = replace(self._facts, signalled=False, cause=cause)

    def _requeue(self) -> None:
        """Unless the job's fate has been decided meanwhile."""
        cause = self._cause()
        if not cause.may_requeue:
            self._facts = replace(self._facts, cause=cause)
            return
        accepted, words = commands.requeue(self._stay.job_id)
        self._record("requeue_asked", accepted=accepted, answer=words, checkpoint=self._facts.position)
        if not accepted and is_out_of_reach(words):
            self._say(f"Slurm could not be asked to queue the job again: {words}")
            self._put_off()
            return
        in_time = self._facts.saved or not self._facts.running
        again = "queued again" if in_time else "queued again, as time is up, before all is saved"
        self._say(again if accepted else f"Slurm does not queue the job again: {words}")
        self._facts = replace(self._facts, requeued=accepted)

    def _kill(self) -> None:
        assert self._driver is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._driver.pid, signal.SIGKILL)
        self._note_end(self._driver.wait())

    def _cause(self) -> Cause:
        job, now = commands.show_job(self._stay.job_id), datetime.now()
        cause = cause_of(job, restarts=self._stay.restarts, lead_s=self._lead_s, now=now)
        self._record("slurm_asked", cause=cause.value, job=str(job))
        if job is None:
            self._put_off()
        else:
            left_s = seconds_to_requeue(job, cause, kill_wait_s=self._kill_wait_s, now=now)
            self._last_call_at_s = None if left_s is None else time.monotonic() + left_s
        return cause

    def _put_off(self) -> None:
        self._reach_again_at_s = time.monotonic() + _REACHED_AGAIN_S
        self._facts = replace(self._facts, unreached=True)

    def _observe(self, inbox: Inbox) -> None:
        """Wait until something has happened, and learn what."""
        stopping = self._facts.stop_sent and self._facts.running
        if inbox.await_signal(within_s=_STOPPING_TICK_S if stopping else _TICK_S):
            self._facts = replace(self._facts, signalled=True)
        if self._driver is not None and (code := self._driver.poll()) is not None:
            self._note_end(code)
        with contextlib.suppress(OSError, EventLogError):  # What cannot be read now may be at the next look.
            self._look()
        self._look_at_clock()

    def _look(self) -> None:
        if self._facts.stop_sent and not self._facts.saved and self._stop.is_saved():
            self._facts = replace(self._facts, saved=True, position=records.newest_checkpoint(self._root))
            self._say(f"saved up to {self._facts.position or 'the beginning'}")
        self._facts = replace(self._facts, superseded=self._is_superseded())

    def _look_at_clock(self) -> None:
        now_s, facts = time.monotonic(), self._facts
        self._facts = replace(
            facts,
            overdue=facts.stop_sent and now_s - self._asked_to_stop_at_s > _STOPPED_WITHIN_S,
            unreached=facts.unreached and now_s < self._reach_again_at_s,
            last_call=self._last_call_at_s is not None and now_s >= self._last_call_at_s,
            given_up_on=not facts.running and now_s - self._ended_at_s > _REACHED_WITHIN_S,
        )

    def _note_end(self, code: int) -> None:
        self._driver, self._ended_at_s = None, time.monotonic()
        self._facts = replace(self._facts, running=False, exit_code=code)
        with contextlib.suppress(OSError):  # Then the one that was known before counts.
            self._facts = replace(self._facts, position=records.newest_checkpoint(self._root))
        if not self._facts.superseded:
            self._record("driver_ended", exit_code=code, position=self._facts.position)

    def _is_superseded(self) -> bool:
        """Whether a later agent has shown itself in the records, which are read when they have changed."""
        size = self._paths.attempts.stat().st_size
        if self._facts.superseded or size == self._records_seen:
            return self._facts.superseded
        holder = records.holder(records.read(self._paths.attempts))
        self._records_seen = size
        return holder not in (None, self._stay)

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
        """Take down what no decision of this agent's rests on."""
        with contextlib.suppress(OSError):  # A full disk must not keep the job from being queued again.
            self._append(event, **facts)

    def _append(self, event: str, **facts: object) -> None:
        records.append(self._paths.attempts, event, job_id=self._stay.job_id, restarts=self._stay.restarts, **facts)

    def _say(self, words: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with contextlib.suppress(OSError), self._paths.log.open("ab", buffering=0) as log:
            log.write(f"{now} resolute agent: {words}\n".encode())


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

"""A run's directory, and who may write there: one process at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import filelock

from launcher.durable import make_directory, remove_temporaries, write_atomically
from launcher.event_log import EventLog
from launcher.paths import RunPaths


class RunDirectoryError(ValueError):
    """A directory cannot take this run."""


class OwnedError(RunDirectoryError):
    """Another process runs in this directory."""


@dataclass(frozen=True)
class Owner:
    """The process that runs in a run directory. `since` is in UTC, ISO 8601."""

    host: str
    pid: int
    since: str
    slurm_job_id: str | None

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job_id}" if self.slurm_job_id else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    @property
    def how_to_stop(self) -> str:
        return f"scancel {self.slurm_job_id}" if self.slurm_job_id else f"kill {self.pid} on {self.host}"


@dataclass(frozen=True)
class RunDirectory:
    """An owned run directory."""

    paths: RunPaths
    events: EventLog


@contextmanager
def open_run_directory(root: Path) -> Iterator[RunDirectory]:
    """Own the run directory `root`, new or an earlier run's, until the context ends or this process dies.

    Removes what an attempt that died had half prepared. The lock is the kernel's: a dead owner holds none.

    Raises OwnedError naming the owner, or RunDirectoryError if `root` holds something else than a run.
    """
    paths = RunPaths(root)
    _refuse_foreign(paths)
    make_directory(root)
    # Not thread-local: the thread that releases need not be the one that acquired.
    lock = filelock.FileLock(paths.lock, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise _owned(paths) from error
    try:
        remove_temporaries(root)
        remove_temporaries(paths.checkpoints)
        write_atomically(paths.owner, json.dumps(dataclasses.asdict(_this_process()), indent=1) + "\n")
        events = EventLog(paths.events)
        try:
            yield RunDirectory(paths, events)
        finally:
            events.close()
            paths.owner.unlink(missing_ok=True)
    finally:
        lock.release()


def read_owner(paths: RunPaths) -> Owner | None:
    """Who runs in this directory, or last died there; None if nobody, or the file says nothing sensible."""
    try:
        return Owner(**json.loads(paths.owner.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _refuse_foreign(paths: RunPaths) -> None:
    if not paths.root.exists():
        return
    if not paths.root.is_dir():
        raise RunDirectoryError(f"{paths.root} is not a directory: give the run a directory of its own")
    # Listed before the lock file is looked for: that one is the first file of a start that races this one.
    if any(paths.root.iterdir()) and not paths.lock.is_file():
        raise RunDirectoryError(
            f"{paths.root} holds files but no run ({paths.lock.name} is missing): give the run a new or empty directory"
        )


def _this_process() -> Owner:
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
    )


def _owned(paths: RunPaths) -> OwnedError:
    owner = read_owner(paths)
    if owner is None:
        return OwnedError(f"{paths.root} belongs to a run that is just starting: wait for it, or use another directory")
    return OwnedError(
        f"{paths.root} belongs to {owner}: wait for it to end, stop it ({owner.how_to_stop}), or use another directory"
    )

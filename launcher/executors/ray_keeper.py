"""Keeps a node of Ray for one process: starts it, ends it with that process, and leaves nothing of it behind.

A program, run by `private_ray` with the interpreter alone; it imports nothing but the standard library.

- stdin is a pipe whose other end only the owner holds. The line "discard" ends Ray and drops its logs. The pipe's end
  without it means that the owner failed or died, even by SIGKILL: Ray ends too, and its logs are saved.
- stdout gets one line, the address of Ray's head, once the node is up. It ends without a line if that fails.

The keeper leads a session of its own, so that Ctrl-C in a terminal reaches neither it nor Ray. All of Ray's processes
stay in this session: what has to end is known by it, and nothing else on the machine is touched.

Signals that ask to end are blocked in it, and so in all of Ray, for some send them to every process of a job: a run is
ended by its driver, which first sees to a checkpoint. To ignore them would not do, as Ray's processes put handlers in.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

_KILLING_S = 10.0
"""For killed processes to be gone; the kernel may hold one that waits for a device."""
_POLL_S = 0.05
MAKER = "owner.json"
"""In Ray's directory: the process that made it (`ray_temp_dir.py`)."""
SHIELDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def keep(temp_dir: Path, saved_logs: Path, start_s: float, command: list[str]) -> None:
    """Run `command`, a blocking `ray start`, until the owner is done, gone, or Ray has ended by itself.

    It has `start_s` to come up.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # Ray's orphans become our children, so that none is left behind.
    discard = False
    with (temp_dir / "ray_start.log").open("wb") as log:
        ray = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent)
    try:
        if _announce_address(ray, temp_dir / "ray" / "ray_current_cluster", within_s=start_s):
            discard = _await_owner(ray)
    finally:
        end_session(os.getpid())
        _reap()
        if not discard:
            _save_logs(temp_dir, saved_logs)
        remove(temp_dir)


def remove(temp_dir: Path) -> None:
    """As far as that can be. Who made it goes last: what a kill or an error leaves is known by that to be abandoned."""
    for entry in temp_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != MAKER:
            with contextlib.suppress(OSError):
                entry.unlink()
    if [entry.name for entry in temp_dir.iterdir()] in ([], [MAKER]):
        shutil.rmtree(temp_dir, ignore_errors=True)


def end_session(session: int) -> None:
    """Kill whatever else belongs to this session: Ray has nothing to lose, and workers may linger without it."""
    _end(lambda: _others_in_session(session))


def end_processes(pids: Collection[int], *, session: int) -> None:
    """Kill those of these processes that belong to the session, and wait until they are gone."""
    _end(lambda: _others_in_session(session) & set(pids))


def _end(processes: Callable[[], set[int]]) -> None:
    deadline = time.monotonic() + _KILLING_S
    while (left := processes()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_with_parent() -> None:
    """Have this process killed when the one that started it is gone."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _announce_address(ray: subprocess.Popen[bytes], file: Path, *, within_s: float) -> bool:
    """Tell the owner the head's address, which `ray start` writes into `file` last; False if it does not come."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and ray.poll() is None and not _owner_speaks():
        if file.is_file() and (address := file.read_text()):
            print(address, flush=True)
            return True
        time.sleep(_POLL_S)
    return False


def _await_owner(ray: subprocess.Popen[bytes]) -> bool:
    """Wait until the owner or Ray has ended; True if the owner wants no logs."""
    while ray.poll() is None:
        if _owner_speaks(within_s=0.2):
            return os.read(sys.stdin.fileno(), 64) == b"discard\n"
    return False


def _owner_speaks(within_s: float = 0.0) -> bool:
    return bool(select.select([sys.stdin], [], [], within_s)[0])


def _others_in_session(session: int) -> set[int]:
    """The processes of a session that live, but for this one."""
    others = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # man 5 proc: pid (comm) state ppid pgrp session ...; the name may hold anything, brackets too.
                state, _, _, its_session = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state not in "ZX":
                    others.add(int(name))
    return others


def _save_logs(temp_dir: Path, saved_logs: Path) -> None:
    """Copy Ray's logs, those of its workers among them, to `saved_logs`."""
    saved_logs.mkdir(parents=True, exist_ok=True)
    for log in temp_dir.glob("*.log"):
        shutil.copy2(log, saved_logs)
    session_logs = temp_dir / "ray" / "session_latest" / "logs"
    if session_logs.is_dir():
        shutil.copytree(session_logs, saved_logs, dirs_exist_ok=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])

"""Keeps a Ray for one driver: starts it, ends it with the driver, and leaves nothing of it behind.

A program, run by `private_ray` with the interpreter alone; it imports nothing but the standard library.

- stdin is a pipe whose other end only the driver holds. The line "discard" ends Ray and drops its logs. The pipe's end
  without it means that the driver failed or died, even by SIGKILL: Ray ends too, and its logs are saved.
- stdout gets one line, Ray's address, once Ray is up. It ends without a line if Ray could not be started.

The keeper leads a session of its own, so that Ctrl-C in a terminal reaches neither it nor Ray. All of Ray's processes
stay in this session: what has to end is known by it, and nothing else on the machine is touched.
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
from pathlib import Path

_DEADLINE_S = 90.0
"""For Ray to come up; 4 s are usual."""
_GRACE_S = 3.0
"""For Ray to end in its own way; 1 s is usual."""
_KILLING_S = 10.0
"""For killed processes to be gone; the kernel may hold one that waits for a device."""
_POLL_S = 0.05
_SHIELDED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def keep(temp_dir: Path, saved_logs: Path, command: list[str]) -> None:
    """Run `command`, a blocking `ray start`, until the driver is done, gone, or Ray has ended by itself."""
    for number in _SHIELDED:
        signal.signal(number, signal.SIG_IGN)  # Inherited by Ray, whose processes SIGUSR1 and SIGUSR2 would kill.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # Ray's orphans become our children, so that they can be waited for.
    discard = False
    with (temp_dir / "ray_start.log").open("wb") as log:
        ray = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_the_keeper
        )
    try:
        if _announce_address(ray, temp_dir / "ray" / "ray_current_cluster"):
            discard = _await_driver(ray)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # What follows is what it asks for.
        _end(ray)
        if not discard:
            _save_logs(temp_dir, saved_logs)
        shutil.rmtree(temp_dir)


def _end_with_the_keeper() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _announce_address(ray: subprocess.Popen[bytes], file: Path) -> bool:
    """Tell the driver Ray's address, which `ray start` writes into `file` last; False if it does not come."""
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline and ray.poll() is None and not _driver_speaks():
        if file.is_file() and (address := file.read_text()):
            print(address, flush=True)
            return True
        time.sleep(_POLL_S)
    return False


def _await_driver(ray: subprocess.Popen[bytes]) -> bool:
    """Wait until the driver or Ray has ended; True if the driver wants no logs."""
    while ray.poll() is None:
        if _driver_speaks(within_s=0.2):
            return os.read(sys.stdin.fileno(), 64) == b"discard\n"
    return False


def _driver_speaks(within_s: float = 0.0) -> bool:
    return bool(select.select([sys.stdin], [], [], within_s)[0])


def _end(ray: subprocess.Popen[bytes]) -> None:
    """End Ray in its own way, then kill whatever of this session is left: workers may linger without their Ray."""
    ray.terminate()
    began = time.monotonic()
    while (left := _others_in_session(ray)) and (waited := time.monotonic() - began) < _GRACE_S + _KILLING_S:
        for pid in left if waited > _GRACE_S or ray.poll() is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _others_in_session(ray: subprocess.Popen[bytes]) -> list[int]:
    """The other processes of this session, those that have ended being waited for first."""
    if ray.poll() is not None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return [pid for name in os.listdir("/proc") if name.isdigit() and _is_ours(pid := int(name))]


def _is_ours(pid: int) -> bool:
    try:
        return pid != os.getpid() and os.getsid(pid) == os.getpid()
    except ProcessLookupError:
        return False


def _save_logs(temp_dir: Path, saved_logs: Path) -> None:
    """Copy Ray's logs, those of its workers among them, to `saved_logs`."""
    saved_logs.mkdir(parents=True, exist_ok=True)
    shutil.copy2(temp_dir / "ray_start.log", saved_logs)
    session_logs = temp_dir / "ray" / "session_latest" / "logs"
    if session_logs.is_dir():
        shutil.copytree(session_logs, saved_logs, dirs_exist_ok=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

"""A process that has imported torch and started no thread, and forks the processes of one attempt after the other.

So a run starts in tenths of a second, though importing torch takes seconds. The nursery is alone in its process because
torch, gloo and our loaders start threads where they are used, and a process with threads must not fork.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.faults.attempts import Attempt, Outcome

_ROOT = Path(__file__).parents[2]
_START_TIMEOUT_S = 120.0
_GRACE_S = 30.0


class Nursery:
    """The caller's side: starts the process, and ends it on leaving."""

    def __init__(self) -> None:
        self._server, theirs = Pipe()
        command = [sys.executable, "-m", "tests.faults.nursery", str(theirs.fileno())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._await(_START_TIMEOUT_S)

    def run(self, attempt: Attempt) -> Outcome:
        """Carry an attempt out; all its processes are gone afterwards."""
        attempt.traces.folder.mkdir(parents=True)
        self._server.send(attempt)
        outcome = self._await(attempt.deadline_s + 2 * _GRACE_S)
        assert isinstance(outcome, Outcome), outcome
        return outcome

    def _await(self, timeout_s: float) -> Any:
        assert self._server.poll(timeout_s), f"the nursery has not answered within {timeout_s:g} s"
        return self._server.recv()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._process.wait(_GRACE_S)


def _serve(caller: Connection) -> None:
    from tests.faults import process_group  # torch, and all else that ranks need

    caller.send(None)
    while True:
        try:
            attempt: Attempt = caller.recv()
        except EOFError:
            return
        caller.send(_carry_out(attempt, process_group.drive))


def _carry_out(attempt: Attempt, drive: Any) -> Outcome:
    began = time.monotonic()
    alive, held_by_all = Pipe(duplex=False)
    report, reporter = Pipe(duplex=False)
    driver = os.fork()
    if driver == 0:
        os.setpgid(0, 0)
        reporter.send(drive(attempt))
        os._exit(0)
    held_by_all.close()
    reporter.close()
    # The attempt's processes all hold the other end open: once it can be read from, at its end, none of them is left.
    overdue = not alive.poll(attempt.deadline_s)
    if overdue:
        os.killpg(driver, signal.SIGKILL)
        assert alive.poll(_GRACE_S), "processes outlive a SIGKILL"
    os.waitpid(driver, 0)
    seconds = time.monotonic() - began
    try:
        end, error = report.recv()
    except EOFError:
        end, error = None, "overdue" if overdue else "the driver died"
    alive.close()
    report.close()
    return Outcome(end, error, seconds)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))

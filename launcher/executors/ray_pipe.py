"""The pipe between a driver and the process that speaks to Ray for it, the leader: both ends.

What goes through it are pairs. To the leader: a question, which is the name of a method, and its arguments; or "order"
and a reason to stop, for the attempt under way. To the driver: "letter" and a pickled event, or "alive"; in the end
"answer" or "error", one for each question.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from launcher.executors import ray_keeper


class RayLostError(RuntimeError):
    """Ray itself is gone, or has stopped answering."""


class LeaderProcess:
    """The driver's end, and the process at the other."""

    def __init__(self, temp_dir: Path, environment: Mapping[str, str]):
        self._connection, theirs = Pipe()
        program = f"import sys; sys.path[:] = {sys.path}; from launcher.executors import ray_leader; ray_leader.main()"
        with (temp_dir / "ray_leader.log").open("wb") as log, theirs, signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, str(theirs.fileno()), str(temp_dir)],
                env=environment,
                cwd=temp_dir,  # Ray has its workers import from here first: never from where a user happens to be.
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def send(self, message: object) -> None:
        """Raises RayLostError, as `receive` does."""
        with _loss_told():
            self._connection.send(message)

    def receive(self, *, within_s: float) -> tuple[str, Any] | None:
        """What it says next, and the content; None if it says nothing."""
        with _loss_told():
            message: tuple[str, Any] | None = self._connection.recv() if self._connection.poll(within_s) else None
            return message

    def end(self) -> None:
        """Kill it: what it leads goes with Ray."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


class Driver:
    """The leader's end."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def send_letter(self, letter: bytes) -> None:
        self._connection.send(("letter", letter))

    def show_life(self) -> None:
        self._connection.send(("alive", None))

    def next_order(self) -> str | None:
        """A reason to stop, if one has come."""
        if not self._connection.poll():
            return None
        kind, (reason,) = self._connection.recv()
        assert kind == "order", kind
        return str(reason)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """A process that is started inside has blocked them for good; here they arrive a little later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ray_keeper.SHIELDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _loss_told() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise RayLostError("the process that speaks to Ray has died") from error

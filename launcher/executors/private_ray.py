"""A Ray that belongs to one run: behind its own token, on loopback alone where one host is enough, gone with the run.

Two processes stand between the driver and Ray. A keeper (`ray_keeper.py`) is its parent: it notices the driver's end
whatever its cause, and keeps signals away from Ray. A leader (`ray_leader.py`) speaks to it: Ray's core ends a process
without a word where it loses its node, and calls to a Ray that hangs never return. The driver itself imports no Ray.

Nothing here waits without a deadline. A Ray that is gone, or does not answer, is a RayLostError.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.attempts import NotUpError
from launcher.executors import ray_keeper
from launcher.executors.ray_environment import LOOPBACK, ray_environment, write_token
from launcher.executors.ray_pipe import LeaderProcess, RayLostError, signals_blocked
from launcher.executors.ray_temp_dir import make_temp_dir

ANSWER_S = 60.0
"""For a sign of life from the leader; one comes every second."""
START_S = 90.0
"""For Ray to come up; 4 s are usual, and a cold shared file system may take minutes."""
_OBJECT_STORE_BYTES = 100_000_000
"""Only functions and small messages go through it."""
_ENDING_S = 30.0
_POLL_S = 0.2


class PrivateRay:
    """A running Ray. `address` is HOST:PORT of its control service (GCS)."""

    def __init__(self, address: str, temp_dir: Path, keeper: subprocess.Popen[bytes], leader: LeaderProcess):
        self.address = address
        self.temp_dir = temp_dir
        """Removed with Ray; workers on this host may use it."""
        self._keeper = keeper
        self._leader = leader

    @property
    def token(self) -> Path:
        """The file with the secret that a node needs to join."""
        return self.temp_dir / "token"

    def ask(
        self,
        what: str,
        *arguments: object,
        on_letter: Callable[[bytes], None] | None = None,
        next_order: Callable[[], str | None] | None = None,
        answer_s: float = ANSWER_S,
    ) -> Any:
        """The leader's answer, or what it raises. Meanwhile its letters come here, and orders go there.

        The main thread only waits here, so that signal handlers run at once. Raises RayLostError.
        """
        self._leader.send((what, arguments))
        heard_at_s = time.monotonic()
        while True:
            if next_order is not None and (order := next_order()) is not None:
                self._leader.send(("order", (order,)))
            message = self._leader.receive(within_s=_POLL_S)
            if message is None:
                self._check(heard_at_s, answer_s)
                continue
            heard_at_s = time.monotonic()
            kind, content = message
            if kind == "answer":
                return content
            if kind == "error":
                raise content
            if kind == "letter" and on_letter is not None:
                on_letter(content)

    def _check(self, heard_at_s: float, answer_s: float) -> None:
        if self._keeper.poll() is not None:
            raise RayLostError("a process of Ray itself has died")
        if time.monotonic() - heard_at_s > answer_s:
            raise RayLostError(f"Ray has not answered for {answer_s:g} s")


@contextlib.contextmanager
def private_ray(
    *,
    num_cpus: int,
    num_gpus: int,
    saved_logs: Path,
    host: str = LOOPBACK,
    settings: Mapping[str, str] | None = None,
    start_s: float = START_S,
) -> Iterator[PrivateRay]:
    """Bring up a Ray for this process alone, and end it with the context.

    `num_cpus` and `num_gpus` are what Ray hands out on this host; other nodes may join if they reach it by `host`.
    `settings` are further environment variables for its processes. If the context ends by an exception, or this process
    dies, Ray's logs, which hold its workers' output, go to `saved_logs`.

    Raises NotUpError if Ray does not come up within `start_s`.
    """
    temp_dir = make_temp_dir()
    token = temp_dir / "token"
    write_token(token, secrets.token_hex(32))
    environment = ray_environment(token, host=host, settings=settings or {})
    head = ["--head", "--port=0", "--include-dashboard=false", "--no-monitor"]
    command = _start_command(host, temp_dir, num_cpus, num_gpus, head)
    keeper = _start_keeper(temp_dir, saved_logs, start_s, command, environment)
    leader = LeaderProcess(temp_dir, environment)  # Imports Ray, which takes 1 of the 4 s that Ray needs to come up.
    last_word = b""
    try:
        ours = PrivateRay(_await_address(keeper, saved_logs, start_s), temp_dir, keeper, leader)
        ours.ask("connect", ours.address, keeper.pid, answer_s=max(start_s, ANSWER_S))  # It imports Ray before.
        yield ours
        last_word = b"discard\n"
    finally:
        leader.end()
        _dismiss(keeper, last_word, temp_dir)


@contextlib.contextmanager
def joined_node(
    address: str,
    secret: str,
    *,
    host: str,
    num_cpus: int,
    num_gpus: int,
    saved_logs: Path,
    settings: Mapping[str, str] | None = None,
    start_s: float = START_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Have this host, known to others as `host`, be a node of the Ray at `address` until the context ends.

    `secret` is what the head's token file holds. Yields the node's keeper, which ends when the node does.

    Raises NotUpError if the node does not come up within `start_s`.
    """
    temp_dir = make_temp_dir()
    token = temp_dir / "token"
    write_token(token, secret)
    environment = ray_environment(token, host=host, settings=settings or {})
    command = _start_command(host, temp_dir, num_cpus, num_gpus, [f"--address={address}"])
    keeper = _start_keeper(temp_dir, saved_logs, start_s, command, environment)
    last_word = b""
    try:
        _await_address(keeper, saved_logs, start_s)
        yield keeper
        last_word = b"discard\n"
    finally:
        _dismiss(keeper, last_word, temp_dir)


def _start_command(host: str, temp_dir: Path, num_cpus: int, num_gpus: int, role: list[str]) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role),
        *(f"--node-ip-address={host}", "--min-worker-port=0", "--max-worker-port=0"),
        "--dashboard-agent-listen-port=0",
        f"--temp-dir={temp_dir / 'ray'}",
        f"--num-cpus={num_cpus}",
        f"--num-gpus={num_gpus}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        *("--include-log-monitor=false", "--disable-usage-stats"),
    ]


def _start_keeper(
    temp_dir: Path, saved_logs: Path, start_s: float, command: list[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-I", ray_keeper.__file__, str(temp_dir), str(saved_logs), str(start_s), *command]
    pipe = subprocess.PIPE
    with signals_blocked():
        return subprocess.Popen(
            arguments, env=environment, cwd=temp_dir, stdin=pipe, stdout=pipe, start_new_session=True
        )


def _await_address(keeper: subprocess.Popen[bytes], saved_logs: Path, start_s: float) -> str:
    """The keeper has a deadline of its own, and a process that is stopped has twice as long."""
    assert keeper.stdout is not None
    comes = select.select([keeper.stdout], [], [], 2 * start_s)[0]
    address = keeper.stdout.readline().decode().strip() if comes else ""
    if address:
        return address
    keeper.kill()
    keeper.wait()
    log = saved_logs / "ray_start.log"
    lines = log.read_text().strip().splitlines() if log.is_file() else []
    raise NotUpError(f"Ray did not come up: {lines[-1] if lines else 'it said nothing'}; see {saved_logs}")


def _dismiss(keeper: subprocess.Popen[bytes], last_word: bytes, temp_dir: Path) -> None:
    """Have the keeper end Ray, and wait for it. It goes on alone if that takes longer than it should."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.communicate(last_word, timeout=_ENDING_S)
        ray_keeper.end_session(keeper.pid)  # Nobody is left, unless somebody killed the keeper.
        with contextlib.suppress(OSError):  # As a rule the keeper has.
            ray_keeper.remove(temp_dir)

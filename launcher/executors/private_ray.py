"""A Ray that belongs to one run: behind its own token, on loopback alone where one host is enough, gone with the run.

Ray is a child of a keeper process (`ray_keeper.py`) rather than of `ray.init`: the keeper notices the driver's end
whatever its cause, keeps signals away from Ray, and brings Ray up while the driver still imports it.

Nothing here waits without a deadline. A Ray that is gone, or does not answer, is a RayLostError; the same process may
then bring up another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from launcher.attempts import RunFailedError
from launcher.executors import ray_keeper
from launcher.executors.ray_environment import RayEnvironment, make_temp_dir, ray_settings, write_token

_NAMESPACE = "resolute"
_OBJECT_STORE_BYTES = 100_000_000
"""Only functions and small messages go through it."""
_CONNECTING_S = 60.0
_ENDING_S = 30.0
_POLL_S = 0.2

T = TypeVar("T")


class RayLostError(RuntimeError):
    """Ray itself is gone, or has stopped answering."""


@dataclass(frozen=True)
class PrivateRay:
    """A running Ray, to which this process is connected."""

    address: str
    """HOST:PORT of its control service (GCS)."""
    temp_dir: Path
    """Removed with Ray; workers on this host may use it."""
    keeper: subprocess.Popen[bytes]

    def result(self, future: Future[T], *, within_s: float, what: str) -> T:
        """The future's result, or what it raises. Raises RayLostError if Ray ends, or the time is over, before."""
        deadline = time.monotonic() + within_s
        while not future.done():
            self.check()
            if time.monotonic() > deadline:
                raise RayLostError(f"{what} has taken longer than {within_s:g} s")
            wait([future], timeout=_POLL_S)
        return future.result()

    def check(self) -> None:
        """Raises RayLostError if Ray has ended: its processes end together, whichever of them was first."""
        if self.keeper.poll() is not None:
            raise RayLostError("a process of Ray itself has died")

    def keep_output(self, pids: Iterable[int], directory: Path) -> None:
        """Copy what these workers of this host have printed; Ray's own logs go when all is well in the end."""
        directory.mkdir(parents=True, exist_ok=True)
        for pid in pids:
            for log in self.temp_dir.glob(f"ray/session_latest/logs/worker-*-{pid}.*"):
                shutil.copy2(log, directory)


@contextlib.contextmanager
def private_ray(environment: RayEnvironment, *, num_cpus: int, num_gpus: int, saved_logs: Path) -> Iterator[PrivateRay]:
    """Bring up a Ray for this process alone, connect to it, and end it with the context. One at a time.

    `num_cpus` and `num_gpus` are what Ray hands out on this host; others may join. If the context ends by an exception,
    or this process dies, Ray's logs, which hold its workers' output, go to `saved_logs`.

    Raises RunFailedError if Ray does not come up.
    """
    temp_dir = environment.temp_dir
    temp_dir.mkdir(mode=0o700)
    write_token(environment.token, environment.secret)
    head = ["--head", "--port=0", "--include-dashboard=false", "--no-monitor"]
    command = _start_command(environment.host, temp_dir, num_cpus, num_gpus, head)
    keeper = _start_keeper(temp_dir, saved_logs, command, os.environ)
    last_word = b""
    try:
        importing = in_background(_import_ray)  # Takes 1 of the 4 s that Ray needs to come up.
        ours = PrivateRay(_await_address(keeper, saved_logs), temp_dir, keeper)
        importing.result()
        # Not in the main thread, where ray.init would put in a SIGTERM handler of its own.
        connecting = in_background(lambda: _connect(ours.address))
        ours.result(connecting, within_s=_CONNECTING_S, what="connecting to Ray")
        yield ours
        last_word = b"discard\n"
    finally:
        _disconnect()
        _dismiss(keeper, last_word, temp_dir)


@contextlib.contextmanager
def joined_node(
    address: str, secret: str, *, host: str, num_cpus: int, num_gpus: int, saved_logs: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Have this host, known to others as `host`, be a node of the Ray at `address` until the context ends.

    `secret` is the content of the head's token file. Yields the node's keeper, which ends when the node does. Does not
    import Ray.

    Raises RunFailedError if the node does not come up.
    """
    temp_dir = make_temp_dir()
    write_token(temp_dir / "token", secret)
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    settings = ray_settings(temp_dir / "token", host=host)
    command = _start_command(host, temp_dir, num_cpus, num_gpus, [f"--address={address}"])
    keeper = _start_keeper(temp_dir, saved_logs, command, {**others, **settings})
    last_word = b""
    try:
        _await_address(keeper, saved_logs)
        yield keeper
        last_word = b"discard\n"
    finally:
        _dismiss(keeper, last_word, temp_dir)


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do `work` in a thread that does not keep this process alive."""
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future


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
    temp_dir: Path, saved_logs: Path, command: list[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-I", ray_keeper.__file__, str(temp_dir), str(saved_logs), *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, env=environment, stdin=pipe, stdout=pipe, start_new_session=True)


def _import_ray() -> None:
    import ray
    import ray.train  # noqa: F401


def _await_address(keeper: subprocess.Popen[bytes], saved_logs: Path) -> str:
    assert keeper.stdout is not None
    line = in_background(keeper.stdout.readline)
    wait([line], timeout=2 * ray_keeper.START_S)  # The keeper ends earlier, unless somebody stopped it.
    address = line.result().decode().strip() if line.done() else ""
    if address:
        return address
    keeper.kill()
    keeper.wait()
    log = saved_logs / "ray_start.log"
    lines = log.read_text().strip().splitlines() if log.is_file() else []
    raise RunFailedError(f"Ray did not come up: {lines[-1] if lines else 'it said nothing'}; see {saved_logs}")


def _connect(address: str) -> None:
    import ray

    ray.init(
        address,
        namespace=_NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"RAY_ADDRESS": address}},
    )


def _disconnect() -> None:
    if (ray := sys.modules.get("ray")) is not None:
        wait([in_background(ray.shutdown)], timeout=_ENDING_S)


def _dismiss(keeper: subprocess.Popen[bytes], last_word: bytes, temp_dir: Path) -> None:
    """Have the keeper end Ray, and wait for it. It goes on alone if that takes longer than it should."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.communicate(last_word, timeout=_ENDING_S)
        ray_keeper.end_session(keeper.pid)  # Nobody is left, unless somebody killed the keeper.
        shutil.rmtree(temp_dir, ignore_errors=True)

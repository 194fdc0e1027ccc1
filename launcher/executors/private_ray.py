"""A Ray that belongs to one run: on loopback alone, behind its own token, and gone with the run.

Ray is a child of a keeper process (`ray_keeper.py`) rather than of `ray.init`: the keeper notices the driver's end
whatever its cause, keeps signals away from Ray, and brings Ray up while the driver still imports it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from launcher.executors.failure import RunFailedError

_KEEPER = Path(__file__).with_name("ray_keeper.py")
_NAMESPACE = "resolute"
_OBJECT_STORE_BYTES = 100_000_000
"""Only functions and small messages go through it."""
_LONGEST_BASE = 19
"""Bytes. A socket's path ends at 107; "/resolute-xxxxxxxx/ray" adds 22 to the base, Ray up to 66."""

_ENDING_S = 30.0


@dataclass(frozen=True)
class PrivateRay:
    """A running Ray, to which this process is connected."""

    address: str
    """HOST:PORT of its control service (GCS)."""
    namespace: str
    temp_dir: Path
    """Removed with Ray; workers may use it."""


@contextlib.contextmanager
def private_ray(
    *, num_cpus: int, num_gpus: int, saved_logs: Path, settings: Mapping[str, str] | None = None
) -> Iterator[PrivateRay]:
    """Bring up a Ray for this process alone, connect to it, and end it with the context.

    `num_cpus` and `num_gpus` are what Ray hands out. Whatever the environment says of another Ray (RAY_ADDRESS, ...) is
    put aside meanwhile; `settings` are further variables for this process and all of Ray's. If the context ends by an
    exception, or this process dies, Ray's logs, which hold its workers' output, go to `saved_logs`.

    To be entered in the main thread, and once in a process: Ray reads address, token and more of its environment only
    when it is imported.

    Raises RunFailedError if Ray does not come up.
    """
    assert "ray" not in sys.modules, "Ray was imported before its settings were made"
    temp_dir = _make_temp_dir()
    token = _write_token(temp_dir)
    with _environment({**_ray_settings(token), **(settings or {})}):
        keeper = _start_keeper(temp_dir, saved_logs, _start_command(temp_dir, num_cpus, num_gpus))
        last_word = b""
        try:
            ray = _import_ray()  # Takes 1 of the 4 s that Ray needs to come up.
            address = _await_address(keeper, saved_logs)
            _connect(ray, address)
            yield PrivateRay(address, _NAMESPACE, temp_dir)
            last_word = b"discard\n"
        finally:
            _disconnect()
            _dismiss(keeper, last_word, temp_dir)


def _make_temp_dir() -> Path:
    """A directory that only this user can enter: the one inside Ray opens to everybody. In /tmp if TMPDIR is long."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST_BASE:
        base = "/tmp"
    return Path(tempfile.mkdtemp(prefix="resolute-", dir=base))


def _write_token(temp_dir: Path) -> Path:
    path = temp_dir / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path


def _ray_settings(token: Path) -> dict[str, str]:
    """The RAY_ variables of the driver and, by inheritance, of all of Ray's processes."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # Off Windows and macOS too, this is what makes Ray take 127.0.0.1 for the node's address and listen only there
        # (ray/_private/services.py: get_node_ip_address).
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Never end a worker because of memory that others on this machine use.
        "RAY_memory_monitor_refresh_ms": "0",
        # Training is what this Ray is for; it would run at a niceness of 15, behind everything else on the machine.
        "RAY_worker_niceness": "0",
        # Idle workers started in advance have not the environment that Ray Train's actors ask for: wasted.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Whatever log_to_driver says, Ray prints to stdout that a worker has died, unless told to skip any line.
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    }


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """`settings`, and no other RAY_ variable that this process has been given."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_") or name in settings]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if name not in os.environ})


def _start_command(temp_dir: Path, num_cpus: int, num_gpus: int) -> list[str]:
    return [
        sys.executable,
        *("-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", "--port=0", "--min-worker-port=0", "--max-worker-port=0"),
        "--dashboard-agent-listen-port=0",
        f"--temp-dir={temp_dir / 'ray'}",
        f"--num-cpus={num_cpus}",
        f"--num-gpus={num_gpus}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        *("--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"),
    ]


def _start_keeper(temp_dir: Path, saved_logs: Path, command: list[str]) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-I", str(_KEEPER), str(temp_dir), str(saved_logs), *command]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _import_ray() -> ModuleType:
    import ray
    import ray.train

    return ray


def _await_address(keeper: subprocess.Popen[bytes], saved_logs: Path) -> str:
    assert keeper.stdout is not None
    address = keeper.stdout.readline().decode().strip()
    if address:
        return address
    keeper.wait()
    log = saved_logs / "ray_start.log"
    lines = log.read_text().strip().splitlines() if log.is_file() else []
    raise RunFailedError(f"Ray did not come up: {lines[-1] if lines else 'it said nothing'}; see {saved_logs}")


def _connect(ray: ModuleType, address: str) -> None:
    previous = signal.getsignal(signal.SIGTERM)
    ray.init(
        address,
        namespace=_NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"RAY_ADDRESS": address}},
    )
    signal.signal(signal.SIGTERM, previous)  # ray.init puts its own handler in.


def _disconnect() -> None:
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


def _dismiss(keeper: subprocess.Popen[bytes], last_word: bytes, temp_dir: Path) -> None:
    """Have the keeper end Ray, and wait for it. It goes on alone if that takes longer than it should."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.communicate(last_word, timeout=_ENDING_S)
        shutil.rmtree(temp_dir, ignore_errors=True)  # Gone already, unless somebody killed the keeper.

"""The environment of a run's own Ray: its token, its directory, its settings, and nothing of other Rays."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LONGEST_BASE = 19
"""Bytes. A socket's path ends at 107; "/resolute-xxxxxxxx/ray" adds 22 to the base, Ray up to 66."""


@dataclass(frozen=True)
class RayEnvironment:
    """What all Rays of this process share, one after the other: Ray reads it once, when it is imported."""

    host: str
    """The address at which other hosts reach this one, or LOOPBACK."""
    temp_dir: Path
    """Made anew for each Ray, and removed with it."""
    secret: str = field(repr=False)

    @property
    def token(self) -> Path:
        """The file with the secret, while Ray is up. Who is to join needs its content."""
        return self.temp_dir / "token"


@contextlib.contextmanager
def ray_environment(*, host: str = LOOPBACK, settings: Mapping[str, str] | None = None) -> Iterator[RayEnvironment]:
    """Put aside what the environment says of other Rays (RAY_ADDRESS, ...), and set what ours need.

    `settings` are further variables for this process and all of Ray's. To be entered once in a process.
    """
    assert "ray" not in sys.modules, "Ray was imported before its settings were made"
    temp_dir = make_temp_dir()
    temp_dir.rmdir()  # Only its name is needed yet.
    ours = RayEnvironment(host, temp_dir, secrets.token_hex(32))
    with _environment({**ray_settings(ours.token, host=host), **(settings or {})}):
        yield ours


def ray_settings(token: Path, *, host: str) -> dict[str, str]:
    """The RAY_ variables of the driver and, by inheritance, of all of Ray's processes."""
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Never end a worker because of memory that others on this machine use.
        "RAY_memory_monitor_refresh_ms": "0",
        # Training is what this Ray is for; it would run at a niceness of 15, behind everything else on the machine.
        "RAY_worker_niceness": "0",
        # Idle workers started in advance have not the environment that Ray Train's actors ask for: wasted.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # A dead node is noticed after 5 s rather than 15.
        "RAY_health_check_period_ms": "1000",
        # Whatever log_to_driver says, Ray prints to stdout that a worker has died, unless told to skip any line.
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    }
    if host == LOOPBACK:
        # Off Windows and macOS too, this is what makes Ray take 127.0.0.1 for the node's address and listen only there
        # (ray/_private/services.py: get_node_ip_address). Elsewhere it listens on all of a host's addresses, and the
        # token alone keeps strangers out.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return settings


def make_temp_dir() -> Path:
    """A directory that only this user can enter: the one inside Ray opens to everybody. In /tmp if TMPDIR is long."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _LONGEST_BASE:
        base = "/tmp"
    return Path(tempfile.mkdtemp(prefix="resolute-", dir=base))


def write_token(path: Path, secret: str) -> None:
    """A file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(secret)


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

"""The environment of a run's own Ray: its token, its settings, and nothing of other Rays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"


def ray_environment(token: Path, *, host: str, settings: Mapping[str, str]) -> dict[str, str]:
    """For processes of Ray, and those that speak to it: ours, without what it says of other Rays (RAY_ADDRESS, ...).

    `host` is the address at which other nodes reach this one, or LOOPBACK; `settings` are further variables.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**others, **_ray_settings(token, host), **settings}


def write_token(path: Path, secret: str) -> None:
    """A file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(secret)


def _ray_settings(token: Path, host: str) -> dict[str, str]:
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

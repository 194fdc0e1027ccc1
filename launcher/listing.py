"""Which names lie among a run's checkpoints, also where a shared file system's listing lags behind.

On NFS a host may see a cached listing without what another host has renamed there a while ago; to look a single name up
asks the server. So the names that the run's events tell of are looked up, too. They are hints alone: what a checkpoint
is worth is decided by reading it, and one that is not told of counts no less.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launcher.event_log import EventLogError, read_events
from launcher.paths import CheckpointName, RunPaths


def names_in(directory: Path) -> list[str]:
    """The listing of a directory; nothing where there is none."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def told_checkpoints(paths: RunPaths) -> tuple[str, ...]:
    """The checkpoints that the run's events say were committed; none where the log cannot be read."""
    with suppress(FileNotFoundError, EventLogError):
        saved = (event.get("path") for event in read_events(paths.events) if event["event"] == "checkpoint_saved")
        return tuple(name for name in saved if isinstance(name, str) and CheckpointName.parse(name))
    return ()


def names_among(checkpoints_dir: Path, told: Iterable[str]) -> set[str]:
    """What is listed there, and what of `told` is there although it is not."""
    listed = set(names_in(checkpoints_dir))
    return listed | {name for name in told if name not in listed and os.path.lexists(checkpoints_dir / name)}

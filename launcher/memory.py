"""How much memory this process and its children may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Names of a control group's limit and use, of its second and first version."""


def available_bytes(cgroup: Path | None = None) -> int:
    """The machine's free memory, or what is left of a container's or Slurm job's if that is less.

    `cgroup` is the control group to look at; this process's own when absent.
    """
    free = int(psutil.virtual_memory().available)
    for folder in _groups() if cgroup is None else [cgroup]:
        for limit_name, use_name in _LIMITS:
            limit, use = _number(folder / limit_name), _number(folder / use_name)
            if limit is not None and use is not None:
                free = min(free, max(0, limit - use))
    return free


def _groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """This process's control groups for memory, and all above them, whose limits hold, too."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return []
    groups: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mounted = root / controllers
            inner = mounted / path.lstrip("/")
            groups += [inner, *(parent for parent in inner.parents if parent.is_relative_to(mounted))]
    return groups


def _number(path: Path) -> int | None:
    """None for a limit that is not there, or none ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

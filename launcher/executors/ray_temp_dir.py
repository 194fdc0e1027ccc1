"""The directory on a host's own disk that a run's Ray has to itself, and what becomes of those whose run was killed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from launcher.executors.ray_keeper import MAKER, remove
from launcher.ownership import RECORD_BYTES, State, parse_owner, state_of, this_process

_PREFIX = "resolute-"
_LONGEST_BASE = 19
"""Bytes. A socket's path ends at 107; "/resolute-xxxxxxxx/ray" adds 22 to the base, Ray up to 66."""


def make_temp_dir() -> Path:
    """A directory that only this user can enter: the one inside Ray opens to everybody.

    It goes with its Ray. Where a run was killed with all its processes at once, as by Slurm or for want of memory,
    nobody was left to remove it: the next one here does.
    """
    base = Path(temp_base())
    for folder in base.glob(f"{_PREFIX}*"):
        if _is_abandoned(folder):
            with contextlib.suppress(OSError):  # Another run may do the same.
                remove(folder)
    temp_dir = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    (temp_dir / MAKER).write_bytes(this_process().to_bytes())
    return temp_dir


def temp_base() -> str:
    """Where that is made: TMPDIR, or /tmp if that is too long for a socket's path."""
    base = tempfile.gettempdir()
    return base if len(os.fsencode(base)) <= _LONGEST_BASE else "/tmp"


def _is_abandoned(folder: Path) -> bool:
    """Whether it is this user's, whoever made it has died, and no process works in it, as one that saves logs does."""
    try:
        if folder.stat(follow_symlinks=False).st_uid != os.geteuid():
            return False
        with (folder / MAKER).open("rb") as file:
            owner = parse_owner(file.read(RECORD_BYTES))
    except OSError:
        return False
    return owner is not None and state_of(owner) is State.GONE and not _is_worked_in(folder)


def _is_worked_in(folder: Path) -> bool:
    """Whether a process that this one may look at has it for its working directory; Ray's and its keeper do."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                return True
        except OSError:  # It has ended, or is another user's.
            continue
    return False

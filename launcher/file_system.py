"""What a run rests on in the file system of its directory, tried out there.

One host sees only its own side: that two hosts are told apart, too, is the file system's word. NFS from version 3 on,
Lustre, GPFS and BeeGFS give it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.durable import free_bytes, naming_full_disk, sync
from launcher.paths import temporary

LOCKS_ADVICE = "mount Lustre with -o flock (not localflock), NFS with its locks (not nolock)"


@dataclass(frozen=True)
class FileSystem:
    """How a directory behaves. Each text says what went wrong; empty where nothing did."""

    directory: Path
    rename: str
    """A file over another one, a whole directory to a new name, and never over what is there."""
    exclusive: str
    """One of two that make the same file succeeds."""
    flush: str
    """Files and directories can be written through to the disk."""
    listing: str
    """What was made is listed at once."""
    locks: str
    """A file can be locked (flock), by which a run's workers on several nodes find each other."""
    clock_ahead_s: float
    """The file system's clock against this host's."""
    free_bytes: int


def look_at(directory: Path) -> FileSystem:
    """Try everything out in `directory`. Raises DiskFullError, or OSError where nothing can be written."""
    with _trial_folder(directory) as folder:
        return FileSystem(
            directory=directory,
            rename=_trouble(_rename, folder),
            exclusive=_trouble(_make_twice, folder),
            flush=_trouble(_flush, folder),
            listing=_trouble(_list, folder),
            locks=_trouble(_lock, folder),
            clock_ahead_s=_clock_ahead_s(folder),
            free_bytes=free_bytes(directory),
        )


def trouble_in(directory: Path) -> str:
    """What makes it impossible to run there; empty if nothing does. Takes milliseconds. Raises as `look_at` does."""
    with _trial_folder(directory) as folder:
        return _trouble(_make_twice, folder) or _trouble(_rename, folder)


def lock_trouble_in(directory: Path) -> str:
    """What makes it impossible for workers on several nodes to meet there; empty if nothing does."""
    with _trial_folder(directory) as folder:
        return _trouble(_lock, folder)


@contextmanager
def _trial_folder(directory: Path) -> Iterator[Path]:
    """Named as what a dead process leaves, which a run's next owner removes."""
    with naming_full_disk(directory, 0):
        folder = Path(tempfile.mkdtemp(prefix=temporary(directory / "trial-", pid=os.getpid()).name, dir=directory))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _BrokenError(Exception):
    """The file system does not keep a promise."""


def _trouble(trial: Callable[[Path], None], folder: Path) -> str:
    try:
        with naming_full_disk(folder, 0):
            trial(folder)
    except _BrokenError as error:
        return str(error)
    except NotImplementedError as error:
        return f"not supported ({error})"
    return ""


def _rename(folder: Path) -> None:
    old, new = folder / "old", folder / "new"
    old.write_text("old")
    new.write_text("new")
    _or_broken("to rename a file over another one", os.replace, new, old)
    if old.read_text() != "new" or new.exists():
        raise _BrokenError("a file that was renamed over another one is not in its place")
    draft, whole = folder / "draft", folder / "whole"
    for directory in (draft, whole):
        directory.mkdir()
        (directory / "part").touch()
    try:
        os.rename(draft, whole)
    except OSError:
        pass  # As it should be: nothing is overwritten.
    else:
        raise _BrokenError("a directory was renamed over another one that is not empty")
    _or_broken("to rename a directory", os.rename, draft, folder / "committed")
    if not (folder / "committed" / "part").exists():
        raise _BrokenError("a directory that was renamed has lost what was in it")


def _make_twice(folder: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(folder / "claim", flags, 0o600))
    try:
        os.close(os.open(folder / "claim", flags, 0o600))
    except FileExistsError:
        return
    raise _BrokenError("a file could be made exclusively (O_EXCL) though it was there")


def _flush(folder: Path) -> None:
    file = folder / "flushed"
    file.write_text("flushed")
    _or_broken("to flush a file", sync, file)
    _or_broken("to flush a directory", sync, folder)


def _list(folder: Path) -> None:
    (folder / "listed").touch()
    if "listed" not in os.listdir(folder):
        raise _BrokenError("a new file is not listed at once")


def _lock(folder: Path) -> None:
    with (folder / "locked").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _BrokenError(f"to lock a file (flock) is refused ({error.strerror})") from error


def _clock_ahead_s(folder: Path) -> float:
    before = time.time()
    (folder / "now").touch()
    stamped, after = (folder / "now").stat().st_mtime, time.time()
    return stamped - after if stamped > after else min(stamped - before, 0.0)


def _or_broken(what: str, act: Callable[..., object], *arguments: Path) -> None:
    try:
        act(*arguments)
    except OSError as error:
        raise _BrokenError(f"{what} is refused ({error.strerror})") from error

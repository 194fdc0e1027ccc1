"""Writes that survive a crash: the new content stands, or the old one does and an error says why."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher import failpoints
from launcher.paths import is_temporary, temporary

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK_BYTES = 4096


class DiskFullError(OSError):
    """The disk, or the user's share of it, is full. What was there before is intact."""


class StrangeFileError(ValueError):
    """Something else lies where a plain file of a run is expected."""


def read_plain(path: Path, *, max_bytes: int) -> bytes:
    """The content of a plain file of at most `max_bytes`. Neither a link is followed nor a pipe waited for.

    Raises StrangeFileError, or OSError as when there is none.
    """
    kind = path.lstat().st_mode
    if not stat.S_ISREG(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "not a file"
        raise StrangeFileError(f"{path} is {what}; only plain files are read: move it away")
    # The check above gives the sentence; the flags hold if somebody exchanges the file in between.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise StrangeFileError(f"{path} is longer than {max_bytes:,} bytes, as no file of a run is: move it away")
    return content


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put `content` at `path`: a reader sees the old file or the new one, whenever this process dies.

    Raises DiskFullError, with the old file in place.
    """
    data = content.encode() if isinstance(content, str) else content
    with prepared_file(path, num_bytes=len(data)) as draft:
        draft.write_bytes(data)


@contextmanager
def prepared_file(path: Path, *, num_bytes: int) -> Iterator[Path]:
    """Yields a draft's path to write to. On leaving, the draft is flushed to disk and renamed to `path`.

    `num_bytes`, roughly what will be written, is told to the user if the disk is full.

    Raises DiskFullError, with the old file in place and the draft removed.
    """
    draft = temporary(path, pid=os.getpid())
    try:
        with naming_full_disk(path, num_bytes):
            yield draft
            sync(draft)
            failpoints.hit("file.before_rename")
            os.replace(draft, path)
            failpoints.hit("file.after_rename")
            sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_as_directory(path: Path) -> None:
    """Let all read or write a file who may do so in its directory: safetensors lets the file's owner alone."""
    path.chmod(path.parent.stat().st_mode & 0o666)


def make_directory(path: Path) -> None:
    """Make a directory that will still be there after a crash, and its parents. Raises DiskFullError."""
    if not path.is_dir():
        with naming_full_disk(path, _BLOCK_BYTES):
            path.mkdir(parents=True, exist_ok=True)
            sync(path.parent)


def remove_temporaries(directory: Path) -> None:
    """Remove what dead processes were preparing in `directory`.

    Only for one who knows that no other process prepares anything there: the run's owner, before its workers
    start.
    """
    for entry in directory.iterdir() if directory.is_dir() else ():
        if is_temporary(entry.name):
            remove_temporary(entry)


def remove_temporary(path: Path) -> None:
    """Remove a temporary file or directory. What cannot be removed stays, and harms nobody."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_space(path: Path, num_bytes: int) -> None:
    """Raises DiskFullError if `path` surely cannot take `num_bytes` more; quotas only show when writing."""
    if free_bytes(path) < num_bytes:
        raise _disk_full(path, num_bytes)


@contextmanager
def naming_full_disk(path: Path, num_bytes: int) -> Iterator[None]:
    """Turns an error for want of space into a DiskFullError: `path` needed `num_bytes`."""
    try:
        yield
    except Exception as error:
        if _errno(error) not in _DISK_FULL or isinstance(error, DiskFullError):
            raise
        raise _disk_full(path, num_bytes) from error


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors raises an error of its own, and puts the number into its text.
    match = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(match[1]) if match else None


def _disk_full(path: Path, num_bytes: int) -> DiskFullError:
    return DiskFullError(
        f"{path}: the disk or your quota is full: {_size(num_bytes)} are needed, and the file system reports "
        f"{_size(free_bytes(path))} free. What was written before is intact. Make room, then resume the run"
    )


def free_bytes(path: Path) -> int:
    """What the file system that `path` lies on, or will lie on, has left for this user, quotas aside."""
    present = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(present).free


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"

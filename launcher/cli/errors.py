"""The sentence and the exit code of an error."""

from __future__ import annotations

import errno

from launcher.attempts import NotUpError
from launcher.durable import DiskFullError

DONE, FAILED, WRONG_INPUT, STOPPED, NOT_UP, DISK_FULL = 0, 1, 2, 3, 4, 5


def explain(error: Exception) -> str | None:
    """What to tell the user; None for an error that nobody foresaw, whose traceback is wanted.

    Every foreseen error has a class of our own, whose text says what, where and what to do.
    """
    ours = type(error).__module__.split(".")[0] in ("launcher", "ffcv_datasets")
    if ours:
        return f"resolute: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"resolute: {error.filename}: {error.strerror}"
    return None


def exit_code(error: Exception) -> int:
    """A ValueError is the user's to mend, and so is a file that cannot be read or written."""
    if isinstance(error, DiskFullError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return DISK_FULL
    if isinstance(error, NotUpError):
        return NOT_UP
    return WRONG_INPUT if isinstance(error, (ValueError, OSError)) else FAILED

"""Which errors are the user's to mend, and the exit code of each."""

from __future__ import annotations

from launcher.coordinator import CoordinationError
from launcher.durable import DiskFullError

DONE, FAILED, WRONG_INPUT, STOPPED, DISK_FULL = 0, 1, 2, 3, 5


class RunFailedError(RuntimeError):
    """A run that ended with an error in a worker; the sentence names rank and cause."""


def exit_code(error: Exception) -> int:
    if isinstance(error, DiskFullError):
        return DISK_FULL
    return WRONG_INPUT if isinstance(error, (ValueError, OSError)) else FAILED


def explain(error: Exception) -> str | None:
    """The sentence for the terminal; None for an error of ours, whose traceback is wanted.

    Every mistake of a user's is a ValueError of one of our own classes.
    """
    ours = type(error).__module__.split(".")[0] in ("launcher", "ffcv_datasets")
    if isinstance(error, (CoordinationError, RunFailedError)) or (ours and isinstance(error, (ValueError, OSError))):
        return f"resolute: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"resolute: {error.filename}: {error.strerror}"
    return None

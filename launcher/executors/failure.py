"""Which of several workers' errors is the cause of a failed run, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from launcher.coordinator import CoordinationError

_ECHO = re.compile(r"gloo|nccl|process group|connection (closed|reset)|store", re.IGNORECASE)


class RunFailedError(RuntimeError):
    """A run ended by an error in a worker; the sentence names rank and cause."""


def run_failure(worker_failures: Mapping[int, Exception], *, logs: Path) -> Exception:
    """The error to raise for the errors of workers, by rank.

    One of ours is a sentence already and comes back as it is; anything else becomes a RunFailedError.
    """
    assert worker_failures
    rank = min(worker_failures, key=lambda rank: (_secondary(worker_failures[rank]), rank))
    error = worker_failures[rank]
    if type(error).__module__.split(".")[0] in ("launcher", "ffcv_datasets"):
        return error
    return RunFailedError(f"rank {rank} {_what_happened(error)}; its output is in {logs}")


def _secondary(error: Exception) -> int:
    """0 for a cause, more for what follows when another rank fails: collectives break, agreement does not come."""
    if isinstance(error, CoordinationError):
        return 1
    return 2 if isinstance(error, RuntimeError) and _ECHO.search(str(error)) else 0


def _what_happened(error: Exception) -> str:
    if hasattr(error, "health_check_failure"):  # Ray Train's error for a worker that does not answer.
        return "died without a word: killed from outside, perhaps for want of memory, or crashed"
    if _secondary(error):
        return f"lost another worker: {error}"
    return f"failed: {type(error).__name__}: {error}"

"""Which of several errors is the cause of a failed run, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from launcher.coordinator import CoordinationError

_BROKEN_COLLECTIVE = re.compile(r"gloo|nccl|process group|connection (closed|reset)|TCPStore", re.IGNORECASE)


class RunFailedError(RuntimeError):
    """A run that came up in vain, or ended by an error in a worker; the sentence names the cause, and the rank."""


def run_failure(error: BaseException, *, logs: Path) -> BaseException:
    """What to raise for an error of Ray Train's `fit`.

    A worker's error that is one of ours is a sentence already, and comes back as it is. Anything else becomes a
    RunFailedError.
    """
    worker_failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    if not worker_failures:
        cause = getattr(error, "controller_failure", error)
        return RunFailedError(f"Ray broke down: {_in_one_line(cause)}; its logs are in {logs}")
    rank = min(worker_failures, key=lambda rank: (_consequence(worker_failures[rank]), rank))
    failure = worker_failures[rank]
    if type(failure).__module__.split(".")[0] in ("launcher", "ffcv_datasets"):
        return failure
    return RunFailedError(f"rank {rank} {_what_happened(failure)}; its output is in {logs}")


def _consequence(failure: Exception) -> int:
    """0 for a cause; more for what follows once another rank fails: agreement does not come, collectives break."""
    if isinstance(failure, CoordinationError):
        return 1
    return 2 if isinstance(failure, RuntimeError) and _BROKEN_COLLECTIVE.search(str(failure)) else 0


def _what_happened(failure: Exception) -> str:
    if hasattr(failure, "health_check_failure"):  # Ray Train's error for a worker whose process is gone.
        return "died without a word: killed from outside, perhaps for want of memory, or crashed"
    if type(failure).__name__ == "WorkerHealthCheckTimeoutError":
        return "is stuck: its process lives and does not answer"
    if _consequence(failure):
        return f"lost the other workers: {_in_one_line(failure)}"
    return f"failed: {_in_one_line(failure)}"


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

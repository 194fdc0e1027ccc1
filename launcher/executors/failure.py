"""Why an attempt failed: which of several errors is the cause, and whether another attempt may get further."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from launcher.attempts import Loss, RunFailedError
from launcher.coordinator import LateError
from launcher.executors.coordinator_actor import CoordinatorLostError
from launcher.executors.last_words import last_words
from launcher.watch import Beat

_BROKEN_COLLECTIVE = re.compile(r"gloo|nccl|process group|connection (closed|reset)|TCPStore", re.IGNORECASE)
_HARDWARE = re.compile(r"(CUDA|HIP|cuDNN|cuBLAS|MIOpen) error|ECC", re.IGNORECASE)


def explain(error: BaseException, *, beats: Mapping[int, Beat], nodes: Collection[str], logs: Path) -> Loss | Exception:
    """What an error of Ray Train's `fit` comes to: a Loss may be made good, an exception would come again.

    `beats` are the ranks' last signs of life, `nodes` those that are still there. A worker's error that is one of ours
    is a sentence already, and comes back as it is.
    """
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return Loss(f"Ray Train broke down: {_in_one_line(getattr(error, 'controller_failure', error))}")
    rank = min(failures, key=lambda rank: (_remoteness(failures[rank]), rank))
    failure = failures[rank]
    gone = [beat for _, beat in sorted(beats.items()) if beat.node not in nodes]
    if gone and (_remoteness(failure) or (_died(failure) and beats.get(rank) in gone)):
        return _lost_node(gone)
    if _is_ours(failure):
        return Loss(str(failure)) if _remoteness(failure) else failure
    who = beats[rank].who if rank in beats else f"rank {rank}"
    crashed = last_words(logs, beats[rank].pid) if _died(failure) and rank in beats else None
    what = f"{who} {f'crashed: {crashed}' if crashed else _what_happened(failure)}; its output is in {logs}"
    if not _may_pass(failure):
        return RunFailedError(what)
    return Loss(what, rank, beats[rank].host if rank in beats else None)


def _is_ours(failure: Exception) -> bool:
    return type(failure).__module__.split(".")[0] in ("launcher", "ffcv_datasets")


def _remoteness(failure: Exception) -> int:
    """0 for a cause; more for what follows once another rank fails: agreement does not come, collectives break."""
    if isinstance(failure, (LateError, CoordinatorLostError)):
        return 1
    return 2 if isinstance(failure, RuntimeError) and _BROKEN_COLLECTIVE.search(str(failure)) else 0


def _lost_node(gone: list[Beat]) -> Loss:
    ranks = ", ".join(str(beat.rank) for beat in gone)
    hosts = sorted({beat.host for beat in gone})
    what = f"the node of rank{'s' if len(gone) > 1 else ''} {ranks} ({', '.join(hosts)}) is gone"
    return Loss(what, gone[0].rank if len(gone) == 1 else None, hosts[0] if len(hosts) == 1 else None)


def _died(failure: Exception) -> bool:
    """Ray Train's error for a worker whose process is gone."""
    return hasattr(failure, "health_check_failure")


def _hangs(failure: Exception) -> bool:
    return type(failure).__name__ == "WorkerHealthCheckTimeoutError"


def _may_pass(failure: Exception) -> bool:
    """Whether it is the machine's fault, or another rank's. What nobody foresaw in the code would come again."""
    hardware = isinstance(failure, RuntimeError) and _HARDWARE.search(str(failure)) is not None
    return _died(failure) or _hangs(failure) or _remoteness(failure) > 0 or hardware or isinstance(failure, OSError)


def _what_happened(failure: Exception) -> str:
    if _died(failure):
        return "died without a word: killed from outside, perhaps for want of memory, or crashed"
    if _hangs(failure):
        return "is stuck: its process lives and does not answer"
    if _remoteness(failure):
        return f"lost the other workers: {_in_one_line(failure)}"
    return f"failed: {_in_one_line(failure)}"


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

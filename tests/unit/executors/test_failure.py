"""From the errors of all ranks to the one sentence about the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.coordinator import CoordinationError
from launcher.durable import DiskFullError
from launcher.executors.failure import RunFailedError, run_failure

LOGS = Path("run/logs/ray")
BROKEN = RuntimeError("[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4242")
WAITING = CoordinationError("no acknowledgement from rank 1 within 300 s")


class WorkerGroupError(Exception):
    """As Ray Train's."""

    def __init__(self, worker_failures: dict[int, Exception]):
        super().__init__("Training failed due to worker errors:\n...")
        self.worker_failures = worker_failures


class WorkerHealthCheckFailedError(Exception):
    """As Ray Train's, for a worker whose process is gone."""

    health_check_failure = None


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [
        (
            {0: BROKEN, 1: TypeError("no such\nlayer")},
            "rank 1 failed: TypeError: no such; its output is in run/logs/ray",
        ),
        ({0: WAITING, 1: KeyError("x"), 2: BROKEN}, "rank 1 failed: KeyError: 'x'; its output is in run/logs/ray"),
        (
            {0: BROKEN, 2: WorkerHealthCheckFailedError("a long story")},
            "rank 2 died without a word: killed from outside, perhaps for want of memory, or crashed; "
            "its output is in run/logs/ray",
        ),
        ({1: MemoryError()}, "rank 1 failed: MemoryError; its output is in run/logs/ray"),
        (
            {0: RuntimeError("NCCL error")},
            "rank 0 lost the other workers: RuntimeError: NCCL error; its output is in run/logs/ray",
        ),
    ],
)
def test_the_cause_is_named_rather_than_what_follows_from_it(failures: dict[int, Exception], sentence: str) -> None:
    error = run_failure(WorkerGroupError(failures), logs=LOGS)
    assert isinstance(error, RunFailedError)
    assert str(error) == sentence


@pytest.mark.parametrize("ours", [DiskFullError("/run: full"), WAITING])
def test_a_sentence_of_ours_comes_back_as_it_is(ours: Exception) -> None:
    assert run_failure(WorkerGroupError({0: BROKEN, 1: ours}), logs=LOGS) is ours


def test_rays_own_failure_is_told_from_a_workers() -> None:
    error = run_failure(ConnectionError("the actor is gone\nfor a long reason"), logs=LOGS)
    assert str(error) == "Ray broke down: ConnectionError: the actor is gone; its logs are in run/logs/ray"

"""From the errors of all ranks to the one cause, and whether another attempt may get further."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.attempts import Loss, RunFailedError
from launcher.coordinator import CoordinationError, LateError
from launcher.durable import DiskFullError
from launcher.executors.coordinator_actor import CoordinatorLostError
from launcher.executors.failure import explain
from launcher.executors.last_words import crash
from launcher.watch import Beat

LOGS = Path("run/logs/ray")
OUTPUT = "; its output is in run/logs/ray"
BROKEN = RuntimeError("[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4242")
WAITING = LateError("no acknowledgement from rank 1 within 300 s")
BEATS = {
    rank: Beat(
        rank=rank,
        host=f"host{rank // 2}",
        pid=100 + rank,
        node=f"node{rank // 2}",
        position=None,
        steps_begun=0,
        activity=0,
        doing="",
        waits=False,
    )
    for rank in range(4)
}
NODES = ("node0", "node1")


CRASHED = """:job_id:01000000
:actor_name:RayTrainWorker
free(): invalid pointer
*** SIGABRT received at time=1795959416 on cpu 1 ***
PC: @     0x7f2caaca8eec  (unknown)  (unknown)
[2026-11-29 13:36:56,270 E 24273 25186] logging.cc:474: *** SIGABRT received at time=1795959416 on cpu 1 ***
Fatal Python error: Aborted

Stack (most recent call first):
  File "/venv/lib/python3.11/site-packages/torch/autograd/graph.py", line 1072 in _engine_run_backward
  File "/venv/lib/python3.11/site-packages/torch/autograd/__init__.py", line 395 in backward
"""
"""As Ray 2.60 keeps the stderr of a worker whose heap is corrupt."""


class WorkerGroupError(Exception):
    """As Ray Train's."""

    def __init__(self, worker_failures: dict[int, Exception]):
        super().__init__("Training failed due to worker errors:\n...")
        self.worker_failures = worker_failures


class WorkerHealthCheckFailedError(Exception):
    """As Ray Train's, for a worker whose process is gone."""

    health_check_failure = None


class WorkerHealthCheckTimeoutError(Exception):
    """As Ray Train's."""


DIED = WorkerHealthCheckFailedError("a long story")


def explained(failures: dict[int, Exception], nodes: tuple[str, ...] = NODES) -> Loss | Exception:
    return explain(WorkerGroupError(failures), beats=BEATS, nodes=nodes, logs=LOGS)


@pytest.mark.parametrize(
    ("failures", "loss"),
    [
        (
            {0: BROKEN, 2: DIED},
            Loss(
                "rank 2 (process 102 on host1) died without a word: killed from outside, perhaps for want of memory, "
                f"or crashed{OUTPUT}",
                2,
                "host1",
            ),
        ),
        (
            {1: WorkerHealthCheckTimeoutError()},
            Loss(f"rank 1 (process 101 on host0) is stuck: its process lives and does not answer{OUTPUT}", 1, "host0"),
        ),
        (
            {0: RuntimeError("NCCL error")},
            Loss(f"rank 0 (process 100 on host0) lost the other workers: RuntimeError: NCCL error{OUTPUT}", 0, "host0"),
        ),
        (
            {0: BROKEN, 1: RuntimeError("CUDA error: an illegal memory access\nwas encountered")},
            Loss(
                f"rank 1 (process 101 on host0) failed: RuntimeError: CUDA error: an illegal memory access{OUTPUT}",
                1,
                "host0",
            ),
        ),
        (
            {0: OSError(5, "Input/output error")},
            Loss(f"rank 0 (process 100 on host0) failed: OSError: [Errno 5] Input/output error{OUTPUT}", 0, "host0"),
        ),
        (
            {7: DIED},
            Loss(f"rank 7 died without a word: killed from outside, perhaps for want of memory, or crashed{OUTPUT}", 7),
        ),
        ({0: WAITING, 1: BROKEN}, Loss("no acknowledgement from rank 1 within 300 s")),
        ({0: CoordinatorLostError("the coordinator's process is gone")}, Loss("the coordinator's process is gone")),
    ],
)
def test_what_the_machine_did_is_a_loss(failures: dict[int, Exception], loss: Loss) -> None:
    assert explained(failures) == loss


def test_a_worker_that_crashed_says_of_what_if_its_output_lies_here(tmp_path: Path) -> None:
    (tmp_path / "worker-5d01-01000000-102.err").write_text(CRASHED)
    loss = explain(WorkerGroupError({0: BROKEN, 2: DIED}), beats=BEATS, nodes=NODES, logs=tmp_path)
    assert isinstance(loss, Loss)
    assert loss.what == (
        "rank 2 (process 102 on host1) crashed: SIGABRT in _engine_run_backward (graph.py:1072), after saying "
        f"'free(): invalid pointer'; its output is in {tmp_path}"
    )


def test_a_worker_that_was_killed_or_wrote_no_stack_says_what_it_can() -> None:
    assert crash(":job_id:01000000\n:actor_name:RayTrainWorker\n/x.py:3: UserWarning: slow\n") is None
    assert crash(":job_id:01000000\n*** SIGSEGV received at time=1 on cpu 0 ***\n") == "SIGSEGV"


def test_ranks_that_break_off_or_die_as_a_node_goes_are_no_cause() -> None:
    assert explained({0: BROKEN, 1: BROKEN}, nodes=("node0",)) == Loss(
        "the node of ranks 2, 3 (host1) is gone", None, "host1"
    )
    assert explained({0: BROKEN, 3: DIED}, nodes=("node0",)) == Loss(
        "the node of ranks 2, 3 (host1) is gone", None, "host1"
    )
    assert explained({0: DIED, 3: BROKEN}, nodes=("node0",)) != explained({3: DIED}, nodes=("node0",))
    alone = explain(WorkerGroupError({0: WAITING}), beats={2: BEATS[2]}, nodes=("node0",), logs=LOGS)
    assert alone == Loss("the node of rank 2 (host1) is gone", 2, "host1")


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [
        (
            {0: BROKEN, 1: TypeError("no such\nlayer")},
            f"rank 1 (process 101 on host0) failed: TypeError: no such{OUTPUT}",
        ),
        ({0: WAITING, 1: KeyError("x"), 2: BROKEN}, f"rank 1 (process 101 on host0) failed: KeyError: 'x'{OUTPUT}"),
        ({1: MemoryError()}, f"rank 1 (process 101 on host0) failed: MemoryError{OUTPUT}"),
        (
            {1: RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")},
            f"rank 1 (process 101 on host0) failed: RuntimeError: CUDA out of memory. Tried to allocate 20 GiB{OUTPUT}",
        ),
    ],
)
def test_what_the_code_did_would_come_again(failures: dict[int, Exception], sentence: str) -> None:
    error = explained(failures)
    assert isinstance(error, RunFailedError)
    assert str(error) == sentence


@pytest.mark.parametrize("ours", [DiskFullError("/run: full"), CoordinationError("rank 1 uses another plan")])
def test_a_sentence_of_ours_comes_back_as_it_is_and_would_come_again(ours: Exception) -> None:
    assert explained({0: BROKEN, 1: ours}) is ours
    assert explained({0: WAITING, 1: ours}, nodes=()) is ours


def test_ray_trains_own_failure_is_a_loss_too() -> None:
    error = ConnectionError("the actor is gone\nfor a long reason")
    assert explain(error, beats={}, nodes=NODES, logs=LOGS) == Loss(
        "Ray Train broke down: ConnectionError: the actor is gone"
    )
    late = ValueError("a wrapping")
    late.controller_failure = TimeoutError("no workers\nwithin 60 s")  # type: ignore[attr-defined]
    assert explain(late, beats={}, nodes=NODES, logs=LOGS) == Loss("Ray Train broke down: TimeoutError: no workers")

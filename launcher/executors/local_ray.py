"""Several workers on this machine: Ray Train's, in a Ray that is private to the run; the coordinator is an actor."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from launcher.coordinator import Done, Stop
from launcher.events import Event, StopRequested
from launcher.executors.coordinator_actor import ACTOR_NAME, ActorLink, CoordinatorPost
from launcher.executors.failure import run_failure
from launcher.executors.private_ray import private_ray
from launcher.paths import RunPaths
from launcher.run_setup import RunSetup
from launcher.signals import stop_on_signal

_POLL_S = 0.2
_LAST_LETTERS_S = 10.0
_COLLECTIVE_TIMEOUT_S = 600
"""How long a rank waits for the others in a collective; they part for the time of a checkpoint at most."""
_TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # An actor of its own, for nodes that come and go.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",  # A worker's process that is alive and answers nothing.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "1",  # NCCL wants each process to see its neighbours' GPUs.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}


class TooFewGpusError(ValueError):
    """A job asks for more workers than the machine has GPUs."""


def run_local_ray(setup: RunSetup, on_event: Callable[[Event], None]) -> Stop | Done:
    """Carry the plan out by Ray Train's workers, and tell how it ended. SIGINT and SIGTERM stop it at the lease's end.

    Raises TooFewGpusError, a failed worker's error if it is one of ours, or RunFailedError.
    """
    workers = setup.plan.world_size
    num_gpus = _count_gpus(workers)
    logs = RunPaths(setup.root).logs / "ray"
    with private_ray(num_cpus=workers, num_gpus=num_gpus, saved_logs=logs, settings=_TRAIN_SETTINGS) as home:
        import ray

        post = ray.remote(num_cpus=0)(CoordinatorPost).options(name=ACTOR_NAME).remote(setup.coordinator())
        trainer = _trainer(setup, home.temp_dir, use_gpu=num_gpus > 0)
        stop_reasons: list[str] = []
        with stop_on_signal(stop_reasons.append):
            fit = _in_background(trainer.fit)
            _lead(fit, post, stop_reasons, on_event)
        error = fit.exception()
        if error is not None:
            raise run_failure(error, logs=logs) from error
        outcome: Stop | Done = fit.result().return_value
        return outcome


def _count_gpus(workers: int) -> int:
    """GPUs to use: all that torch sees, or none. Raises TooFewGpusError."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < num_gpus < workers:
        raise TooFewGpusError(
            f"run.workers: {workers} workers need a GPU each, but this machine has {num_gpus}; "
            f"use --workers {num_gpus}, or train on the CPU by an empty CUDA_VISIBLE_DEVICES"
        )
    return num_gpus


def _trainer(setup: RunSetup, temp_dir: Path, *, use_gpu: bool) -> Any:
    """Ray Train's trainer; what it stores is of no use to us, and goes with Ray's directory.

    Not its TorchTrainer, which has rank 0 listen on all of the host's addresses, and two more processes import torch.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer(
        partial(_work, setup, temp_dir / "process_group"),
        scaling_config=ScalingConfig(num_workers=setup.plan.world_size, use_gpu=use_gpu),
        run_config=RunConfig(
            name="run", storage_path=str(temp_dir / "train"), failure_config=FailureConfig(max_failures=0)
        ),
    )


def _work(setup: RunSetup, meeting_file: Path) -> Stop | Done:
    """What each of Ray Train's workers does. Ranks find each other through `meeting_file`."""
    import torch.distributed as dist
    from ray.train import get_context
    from ray.train.torch import get_device

    from launcher.worker_process import Place, run_worker

    context = get_context()
    rank, world_size, device = context.get_world_rank(), context.get_world_size(), get_device()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{meeting_file}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=_COLLECTIVE_TIMEOUT_S),
        device_id=device if device.type == "cuda" else None,
    )
    outcome = run_worker(setup, Place(rank, context.get_local_world_size(), device), ActorLink())
    dist.destroy_process_group()
    return outcome


def _in_background(work: Callable[[], Any]) -> Future[Any]:
    """Do `work` in a thread that does not keep this process alive."""
    future: Future[Any] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="fit", daemon=True).start()
    return future


def _lead(fit: Future[Any], post: Any, stop_reasons: list[str], on_event: Callable[[Event], None]) -> None:
    """Hand events on, and stop requests over, until `fit` is over.

    The main thread waits for futures alone: what a signal handler raises inside `ray.get` would be lost.
    """
    letters = post.take_letters.remote().future()
    while not fit.done():
        wait([fit], timeout=_POLL_S)
        while stop_reasons:
            reason = stop_reasons.pop()
            post.request_stop.remote(reason)
            on_event(StopRequested(reason))
        if letters.done():
            _deliver(letters, on_event)
            letters = post.take_letters.remote().future()
    for last in (letters, post.take_letters.remote().future()):
        wait([last], timeout=_LAST_LETTERS_S)
        _deliver(last, on_event)


def _deliver(letters: Future[list[bytes]], on_event: Callable[[Event], None]) -> None:
    """Hand on what has come; nothing comes any more from a coordinator that died, which `fit` will tell of."""
    if letters.done() and not letters.exception():
        for letter in letters.result():
            on_event(pickle.loads(letter))

"""Several workers on this machine: Ray Train's, in a Ray that is private to the run; the coordinator is an actor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from launcher.coordinator import Done, Stop
from launcher.events import Event
from launcher.executors.private_ray import private_ray
from launcher.executors.ray_run import RayRun
from launcher.paths import RunPaths
from launcher.run_setup import RunSetup
from launcher.signals import stop_on_signal


class TooFewGpusError(ValueError):
    """A job asks for more workers than the machine has GPUs."""


def run_local_ray(setup: RunSetup, on_event: Callable[[Event], None]) -> Stop | Done:
    """Carry the plan out by Ray Train's workers, and tell how it ended. A signal stops it at the lease's end.

    Raises TooFewGpusError, a failed worker's error if it is one of ours, or RunFailedError.
    """
    run = setup.job.run
    num_gpus = _count_gpus(run.least_workers)
    logs = RunPaths(setup.root).logs / "ray"
    stop_reasons: list[str] = []
    settings = train_settings(stall_timeout_s=run.stall_timeout_s, interface="lo")
    bring_up = partial(private_ray, num_cpus=run.most_workers, num_gpus=num_gpus, saved_logs=logs, settings=settings)
    ray_run = RayRun(
        setup, use_gpu=num_gpus > 0, logs=logs, meeting_dir=None, on_event=on_event, stop_reasons=stop_reasons
    )
    with stop_on_signal(stop_reasons.append):
        return ray_run.carry_out(bring_up)


def train_settings(*, stall_timeout_s: float, interface: str) -> dict[str, str]:
    """Environment variables for Ray Train, and for its workers to talk to each other over a network interface."""
    return {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # An actor of its own, for nodes that come and go.
        "RAY_TRAIN_METRICS_ENABLED": "0",
        # A worker's process that is alive and answers nothing: our own watch is to name it before.
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(2 * stall_timeout_s),
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "1",  # NCCL wants each process to see its neighbours' GPUs.
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
    }


def _count_gpus(least_workers: int) -> int:
    """GPUs to use: all that torch sees, or none. Raises TooFewGpusError."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < num_gpus < least_workers:
        raise TooFewGpusError(
            f"run.workers: {least_workers} workers need a GPU each, but this machine has {num_gpus}; "
            f"use --workers {num_gpus}, or train on the CPU by an empty CUDA_VISIBLE_DEVICES"
        )
    return num_gpus

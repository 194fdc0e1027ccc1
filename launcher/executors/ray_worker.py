"""What each of Ray Train's workers does: join the others, be watched, and live a worker's life."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from launcher.coordinator import Done, Stop
from launcher.executors.coordinator_actor import ActorLink
from launcher.executors.pulse import pulse
from launcher.run_setup import RunSetup

_LONGEST_PULSE_S = 2.0
_BEATS_PER_TIMEOUT = 5


def work(setup: RunSetup, post: Any, meeting_file: Path) -> Stop | Done:
    """Ranks find each other through `meeting_file`, on a file system that all of them see; `post` is the coordinator.

    A file, as torch's other stores would not do: TCPStore listens without a password, and one in Python, over the
    coordinator's actor, cannot be cloned, which a second process group asks for (torch 2.15).
    """
    import torch.distributed as dist
    from ray import get_runtime_context
    from ray.train import get_context
    from ray.train.torch import get_device

    from launcher.worker_process import Place, run_worker

    context, device, stall_s = get_context(), get_device(), setup.job.run.stall_timeout_s
    staging_s = (
        setup.job.data.stage_timeout_s if setup.job.data.stage else 0.0
    )  # One node may take longer than another.
    rank, node, link = context.get_world_rank(), get_runtime_context().get_node_id(), ActorLink(post)
    with pulse(rank, node, link.progress, link.beat, every_s=min(_LONGEST_PULSE_S, stall_s / _BEATS_PER_TIMEOUT)):
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{meeting_file}",
            rank=rank,
            world_size=context.get_world_size(),
            timeout=timedelta(seconds=2 * stall_s + staging_s),  # Whoever is stuck is to be named by the watch, before.
            device_id=device if device.type == "cuda" else None,
        )
        outcome = run_worker(setup, Place(rank, context.get_local_world_size(), device), link)
        dist.destroy_process_group()
        link.farewell(rank, outcome)
    return outcome

"""The nodes of a Ray: which of them are there, what they offer, and how to end a process on one.

Every function here waits for Ray, for as long as Ray takes: call it in the background, and with a deadline.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NODES_S = 30.0
"""For Ray to tell its nodes; it takes milliseconds."""
_KNOCK_S = 2.0


@dataclass(frozen=True)
class RayNode:
    """A node that takes part and answers. `cpus` and `gpus` are what Ray hands out there."""

    id: str
    host: str
    cpus: int
    gpus: int


def nodes_at_hand() -> list[RayNode]:
    """The nodes on which workers can be started now.

    Ray takes seconds to notice that one is gone, so each is knocked at.
    """
    return [
        RayNode(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and _answers(node["NodeManagerAddress"], node["NodeManagerPort"])
    ]


def room_for_workers(nodes: Iterable[RayNode], *, use_gpu: bool) -> int:
    """Workers that the nodes have room for: a CPU each, and a GPU each where they use them."""
    return sum(min(node.cpus, node.gpus) if use_gpu else node.cpus for node in nodes)


def end_process(node: str, pid: int) -> bool:
    """Kill a process of Ray's on that node; False if it is gone already."""
    kill = ray.remote(num_cpus=0, max_retries=0)(_kill)
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    killed: bool = ray.get(kill.options(scheduling_strategy=here).remote(pid))
    return killed


def _kill(pid: int) -> bool:
    try:
        # A node's processes are a session; a number that has come to be another's is not ours to kill.
        if os.getsid(pid) != os.getsid(0):
            return False
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_KNOCK_S).close()
    except OSError:
        return False
    return True

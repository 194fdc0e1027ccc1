"""The nodes of a Ray: which of them are there, what they offer, and how to end a process on one.

Every function here waits for Ray, for as long as Ray takes: call it in the background, and with a deadline.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import ray
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.executors.ray_keeper import end_processes
from launcher.executors.ray_pipe import RayLostError
from launcher.watch import Beat

NODES_S = 30.0
"""For Ray to tell its nodes, and to end processes there; it takes milliseconds, and 3 s on other nodes."""
_KNOCK_S = 2.0


@dataclass(frozen=True)
class RayNode:
    """A node that takes part and answers. `cpus` and `gpus` are what Ray hands out there."""

    id: str
    host: str
    cpus: int
    gpus: int


def nodes_at_hand() -> list[RayNode]:
    """The nodes on which workers can be started now. Raises RayLostError if this host's is not among them.

    Ray takes seconds to notice that one is gone, so each is knocked at.
    """
    nodes = [
        RayNode(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and _answers(node["NodeManagerAddress"], node["NodeManagerPort"])
    ]
    if ray.get_runtime_context().get_node_id() not in {node.id for node in nodes}:
        raise RayLostError("Ray has given up its node on this host")
    return nodes


def room_for_workers(nodes: Iterable[RayNode], *, use_gpu: bool) -> int:
    """Workers that the nodes have room for: a CPU each, and a GPU each where they use them."""
    return sum(min(node.cpus, node.gpus) if use_gpu else node.cpus for node in nodes)


def free_nodes() -> None:
    """End the workers of earlier attempts where there are any left, and hand out anew what they hold.

    Ray Train does so, unless its controller was killed: what would do so then needs Ray's dashboard.
    """
    for number, facts in placement_group_table().items():
        if facts["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(number))))


def end_workers(workers: Iterable[Beat], nodes: Collection[str], *, session: int) -> None:
    """Kill the processes of these workers, as far as they run on one of `nodes`, and wait until they are gone.

    `session` is that of Ray's processes on this host.
    """
    here = ray.get_runtime_context().get_node_id()
    end = ray.remote(num_cpus=0, max_retries=0)(_end_there)
    by_node = {node: [worker.pid for worker in workers if worker.node == node] for node in nodes}
    elsewhere = [
        end.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(pids)
        for node, pids in by_node.items()
        if pids and node != here
    ]
    end_processes(by_node.get(here, []), session=session)
    if elsewhere:  # One that is going meanwhile answers nothing.
        ray.wait(elsewhere, num_returns=len(elsewhere), timeout=NODES_S)


def _end_there(pids: list[int]) -> None:
    end_processes(pids, session=os.getsid(0))  # A node's processes are a session.


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_KNOCK_S).close()
    except OSError:
        return False
    return True

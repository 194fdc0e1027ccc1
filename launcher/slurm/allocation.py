"""What a job asks of Slurm: its workers laid out on a site's nodes, and the options of sbatch that say so. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from launcher.config import JobConfig, Workers
from launcher.slurm.profile import Nodes, Profile

_AGENTS_END_WITHIN_S = 60
_END_WHERE_SETUP_FAILS = """\
trap '((${#BASH_SOURCE[@]} > 1)) || { echo "resolute: the job ends, as this line of its setup failed: \
$(sed -n "${LINENO}p" "$0")" >&2; exit 1; }' ERR"""
"""A script without an environment would go on to train by another one. Lines within sourced files may fail."""


class AllocationError(ValueError):
    """A job's workers do not fit a site's nodes."""


@dataclass(frozen=True)
class Allocation:
    """Nodes, and what is taken of each."""

    min_nodes: int
    max_nodes: int
    workers_per_node: int
    cpus_per_node: int
    gpus_per_node: int

    @property
    def may_shrink(self) -> bool:
        """Whether the job goes on when it loses a node other than the first."""
        return self.min_nodes < self.max_nodes

    @property
    def nodes(self) -> str:
        """As sbatch takes it."""
        return str(self.max_nodes) if self.min_nodes == self.max_nodes else f"{self.min_nodes}-{self.max_nodes}"


def allocate(job: JobConfig, profile: Profile) -> Allocation:
    """The nodes that the profile names, or those that the job's workers fill; less than one node is possible.

    Raises AllocationError if the workers leave a node half used.
    """
    per_node, cpus, gpus = profile.workers_on_each_node, profile.cpus_per_node, profile.gpus_per_node
    if isinstance(profile.nodes, Nodes):
        return Allocation(profile.nodes.min, profile.nodes.max, per_node, cpus, gpus)
    if profile.nodes is not None:
        return Allocation(profile.nodes, profile.nodes, per_node, cpus, gpus)
    workers = job.run.most_workers
    if workers < per_node:
        share = 1.0 if profile.exclusive else workers / per_node
        return Allocation(1, 1, workers, math.ceil(cpus * share), workers if gpus else 0)
    if workers % per_node:
        below = workers // per_node * per_node
        raise AllocationError(
            f"run.workers: {workers} workers do not fill nodes of {per_node}; use {below} or {below + per_node}, "
            "or another workers_per_node in the profile"
        )
    return Allocation(math.ceil(job.run.least_workers / per_node), workers // per_node, per_node, cpus, gpus)


def fit(job: JobConfig, profile: Profile) -> JobConfig:
    """The job with as many workers as the allocation has room for, told of the site's grace period and scratch disk."""
    asked = allocate(job, profile)
    least, most = asked.min_nodes * asked.workers_per_node, asked.max_nodes * asked.workers_per_node
    if profile.nodes is None:
        least = job.run.least_workers
    run: dict[str, Any] = {
        "workers": most if least == most else Workers(min=least, max=most),
        "mode": "ray" if most > 1 else job.run.mode,
        "grace_s": profile.grace_s or job.run.grace_s,
    }
    stage = job.data.stage if "stage" in job.data.model_fields_set else profile.scratch
    data = job.data.model_copy(update={"stage": stage})
    return job.model_copy(update={"run": job.run.model_copy(update=run), "data": data})


def sbatch_options(profile: Profile, asked: Allocation, *, name: str, run_directory: str) -> dict[str, Any]:
    """The parameters of submitit's SlurmExecutor, by their names there; absent ones are None."""
    options = {
        "signal": f"{profile.signal}@{profile.signal_lead_s}",
        "requeue" if profile.requeue else "no-requeue": True,
        **({"no-kill": True} if asked.may_shrink else {}),
        **profile.sbatch_options,
    }
    return {
        "job_name": name,
        # By it a run is found from its job, and the other way round.
        "comment": run_directory,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "time": profile.time_limit_minutes,
        "nodes": asked.nodes,
        # With it Slurm 22.05 never grants more than the least of a range: srun alone says it then.
        "ntasks_per_node": 1 if asked.min_nodes == asked.max_nodes else None,
        "cpus_per_task": asked.cpus_per_node,
        "gpus_per_node": asked.gpus_per_node or None,
        "mem": f"{math.ceil(profile.memory_gb_per_node * 1024)}M" if profile.memory_gb_per_node else None,
        "exclusive": True if profile.exclusive else None,
        "wckey": None,
        "setup": setup_lines(profile) or None,
        "stderr_to_stdout": True,
        "srun_args": [
            "--ntasks-per-node=1",
            # From Slurm 22.05 on srun does not take over sbatch's.
            f"--cpus-per-task={asked.cpus_per_node}",
            # The agents end by themselves once the first one has; killed ones would hide its exit code.
            "--kill-on-bad-exit=0",
            f"--wait={_AGENTS_END_WITHIN_S}",
            *(("--no-kill",) if asked.may_shrink else ()),
            *profile.srun_options,
        ],
        "additional_parameters": options,
    }


def setup_lines(profile: Profile) -> list[str]:
    """Shell lines that come before the agent, which is not started if one of the site's fails."""
    variables = dict(profile.environment)
    if profile.network_interface:
        variables = {
            "GLOO_SOCKET_IFNAME": profile.network_interface,
            "NCCL_SOCKET_IFNAME": profile.network_interface,
            **variables,
        }
    exports = [f"export {name}={_quote(value)}" for name, value in variables.items()]
    setup = [*(f"module load {module}" for module in profile.modules), *profile.setup]
    return [_END_WHERE_SETUP_FAILS, *setup, "trap - ERR", *exports] if setup else exports


def _quote(value: str) -> str:
    """For bash, with variables replaced by what they hold in the job."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`")
    return f'"{escaped}"'

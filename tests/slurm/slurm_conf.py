"""The configuration files of a Slurm of several nodes on one host, wholly under one directory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREEMPTABLE = {
    "low": "PreemptMode=REQUEUE GraceTime=4",
    "nograce": "PreemptMode=REQUEUE GraceTime=0",
    "cancel": "PreemptMode=CANCEL GraceTime=4",
    "cancelnow": "PreemptMode=CANCEL GraceTime=0",
}
"""Partitions whose jobs make way for those of the partition `high`. Graces fall 10 s late: nothing may rest on them."""


@dataclass(frozen=True)
class Options:
    """What tests may vary. Slurm has more CPUs and memory here than the host."""

    num_nodes: int = 3
    cpus_per_node: int = 4
    gpus_per_node: int = 2
    proctrack: str = "pgid"
    """How slurmd knows a step's processes; cgroup needs root and the v1 freezer."""
    user_signal: bool = False
    """Preemption sends a job's own --signal instead of SIGTERM."""
    kill_wait_s: int = 8
    """From SIGTERM to SIGKILL: what a busy machine may need for a stop."""
    slurmd_timeout_s: int = 10
    """Silence after which a node is down, and its job requeued."""


@dataclass(frozen=True)
class Layout:
    """Where one cluster lives. Node names must be unique among the clusters of a host: cgroups are named by them."""

    root: Path
    host: str
    user: str
    controller_port: int
    node_ports: tuple[int, ...]

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def nodes(self) -> list[str]:
        return [f"{self.root.name}-n{number}" for number in range(1, len(self.node_ports) + 1)]

    def log(self, daemon: str) -> Path:
        return self.root / "log" / f"{daemon}.log"


def files(layout: Layout, options: Options) -> dict[str, str]:
    """File name in the cluster's directory -> content."""
    gpus = f"{layout.root}/dev/nvidia[0-{options.gpus_per_node - 1}]"
    texts = {
        "slurm.conf": slurm_conf(layout, options),
        "gres.conf": f"AutoDetect=off\nNodeName={','.join(layout.nodes)} Name=gpu File={gpus}\n",
        "plugstack.conf": "",
    }
    if options.proctrack == "cgroup":
        texts["cgroup.conf"] = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
    return texts


def slurm_conf(layout: Layout, options: Options) -> str:
    root, nodes = layout.root, ",".join(layout.nodes)
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{layout.host}(127.0.0.1)",
        "SlurmctldPort": layout.controller_port,
        "SlurmUser": layout.user,
        "SlurmdUser": layout.user,
        "AuthType": "auth/munge",
        # A requeued job is held for cred_expire + 1 s.
        "AuthInfo": f"socket={root}/munge/socket,cred_expire=5",
        "CredType": "cred/munge",
        "StateSaveLocation": f"{root}/state",
        "SlurmctldPidFile": f"{root}/run/slurmctld.pid",
        "SlurmctldLogFile": layout.log("slurmctld"),
        "SlurmdPidFile": f"{root}/run/slurmd.%n.pid",
        "SlurmdSpoolDir": f"{root}/spool/%n",
        "SlurmdLogFile": layout.log("slurmd.%n"),
        "PlugStackConfig": f"{root}/plugstack.conf",
        "ProctrackType": f"proctrack/{options.proctrack}",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "GresTypes": "gpu",
        "ReturnToService": 2,
        "SlurmdParameters": "config_overrides",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=0",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": 1,
        "KillWait": options.kill_wait_s,
        "MinJobAge": 3600,
        "SlurmdTimeout": options.slurmd_timeout_s,
        "SlurmctldTimeout": 30,
    }
    if options.user_signal:
        settings["SlurmctldParameters"] = "preempt_send_user_signal"
    lines = [f"{key}={value}" for key, value in settings.items()]
    for node, port in zip(layout.nodes, layout.node_ports, strict=True):
        lines.append(
            f"NodeName={node} NodeHostname={layout.host} NodeAddr=127.0.0.1 Port={port} CPUs={options.cpus_per_node} "
            f"Boards=1 SocketsPerBoard=1 CoresPerSocket={options.cpus_per_node} ThreadsPerCore=1 RealMemory=16000 "
            f"Gres=gpu:{options.gpus_per_node} State=UNKNOWN"
        )
    common = f"Nodes={nodes} MaxTime=INFINITE DefaultTime=10 State=UP"
    for name, mode in PREEMPTABLE.items():
        lines.append(f"PartitionName={name} {common} PriorityTier=1 {mode}" + (" Default=YES" if name == "low" else ""))
    lines.append(f"PartitionName=high {common} PriorityTier=10 PreemptMode=OFF")
    return "\n".join(lines) + "\n"

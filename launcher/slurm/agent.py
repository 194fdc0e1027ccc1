"""The Slurm task of a run, one on each node: it has the signals, the driver has the training.

    srun ... python -m launcher.slurm.agent [OPTIONS] RUN_DIR [-- DRIVER ...]

The first node's agent starts the driver (`resolute resume RUN_DIR` unless another is given) in a session of its own,
so that no signal of Slurm's reaches it. On a signal it asks the driver to stop (SIGTERM to that process alone, and
once), asks Slurm what the signal meant, and has the job queued again as soon as the driver's checkpoint is durable.
What it does when is decided in `conduct.py`. The driver dies with it.

The driver learns by RESOLUTE_MEETING what was granted, and where it meets the other agents, which make their nodes part
of its Ray.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launcher.slurm import commands
from launcher.slurm.head_agent import HeadAgent
from launcher.slurm.inbox import Inbox, open_inbox
from launcher.slurm.meeting import VARIABLE, Granted, Meeting
from launcher.slurm.node_agent import NodeAgent
from launcher.slurm.records import SlurmPaths, Stay


def this_stay() -> Stay:
    """The allocation that this process is part of."""
    job_id = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    return Stay(_task_of(job_id), int(os.environ.get("SLURM_RESTART_COUNT", 0)))


def _task_of(job_id: str) -> str:
    """This process's task in an array, whose own or whose predecessor's id that is; else the id itself."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return job_id if task is None else f"{job_id}_{task}"


def _was_cancelled(job_id: str | None) -> bool:
    job = commands.show_job(_task_of(job_id)) if job_id else None
    return job is not None and job.state == "CANCELLED"


def main() -> None:
    arguments = _parse()
    root, stay, number = arguments.run_directory.absolute(), this_stay(), int(os.environ.get("SLURM_PROCID", 0))
    meeting = Meeting.of(root, stay)
    with open_inbox() as inbox:
        if number > 0:
            sys.exit(NodeAgent(root, meeting, stay=stay, number=number).run(inbox))
        print(f"resolute: what follows stands in {SlurmPaths(root).log}", flush=True)
        sys.exit(_lead(arguments, root, stay, meeting, inbox))


def _lead(arguments: argparse.Namespace, root: Path, stay: Stay, meeting: Meeting, inbox: Inbox) -> int:
    """On the first node; the exit code for Slurm."""
    nodes = _nodes()
    driver = arguments.driver or [sys.executable, "-m", "launcher", "resume", str(root), "--here", "--try-again"]
    per_node = arguments.workers_per_node
    # On a single node, too, where it is told how many workers one has: a range of nodes may have come down to that.
    environment = {VARIABLE: str(meeting.folder)} if len(nodes) > 1 or per_node else {}
    agent = HeadAgent(root, driver, stay=stay, lead_s=arguments.lead_s, environment=environment)
    if _was_cancelled(arguments.after):
        return agent.decline(arguments.after)
    workers = per_node or int(os.environ.get("SLURM_GPUS_ON_NODE", 1))
    meeting.open(Granted(nodes, workers, arguments.interface, arguments.join_timeout_s))
    try:
        return agent.run(inbox)
    finally:
        meeting.close()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launcher.slurm.agent", description="One node's part of a run.")
    parser.add_argument("run_directory", type=Path)
    parser.add_argument("--lead-s", type=float, default=120.0, help="seconds before the time limit at which it is told")
    parser.add_argument("--workers-per-node", type=int, help="as many as there are GPUs when absent")
    parser.add_argument("--interface", help="network interface by which nodes talk; chosen by route when absent")
    parser.add_argument("--join-timeout-s", type=float, default=300.0, help="seconds for all nodes to come together")
    parser.add_argument("--after", metavar="JOB", help="the job that this one follows; cancelled, it ends the chain")
    parser.add_argument("driver", nargs="*", help="the driver's command; `resolute resume RUN_DIR` when absent")
    return parser.parse_args()


def _nodes() -> tuple[str, ...]:
    """Of the allocation, in the order of their tasks."""
    succeeded, words = commands.call("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
    assert succeeded, words
    return tuple(words.split())


if __name__ == "__main__":
    main()

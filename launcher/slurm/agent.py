"""The Slurm task of a run, one on each node: it has the signals, the driver has the training.

    srun ... python -m launcher.slurm.agent [OPTIONS] RUN_DIR [-- DRIVER ...]

The first node's agent starts the driver (`resolute resume RUN_DIR --here` unless another is given) in a session of its
own, so that no signal of Slurm's reaches it. On a signal it asks the driver to stop (SIGTERM to that process alone, and
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

from launcher.event_log import EventLogError
from launcher.run_directory import RunDirectoryError
from launcher.slurm import commands, records
from launcher.slurm.commands import SlurmError
from launcher.slurm.conduct import Ending, Exit, after_predecessor
from launcher.slurm.head_agent import HeadAgent
from launcher.slurm.inbox import Inbox, open_inbox
from launcher.slurm.meeting import VARIABLE, Granted, Meeting
from launcher.slurm.node_agent import NodeAgent
from launcher.slurm.records import SlurmPaths, Stay


def this_stay() -> Stay:
    """The allocation that this process is part of. Raises SlurmError."""
    if "SLURM_JOB_ID" not in os.environ:
        raise SlurmError("this is no job of Slurm's, as SLURM_JOB_ID is not set: submit the run with `resolute submit`")
    job_id = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    return Stay(_task_of(job_id), int(os.environ.get("SLURM_RESTART_COUNT", 0)))


def _task_of(job_id: str) -> str:
    """This process's task in an array, whose own or whose predecessor's id that is; else the id itself."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return job_id if task is None else f"{job_id}_{task}"


def main() -> None:
    try:
        sys.exit(_serve(_parse()))
    except (SlurmError, RunDirectoryError, EventLogError, OSError) as error:
        sys.exit(f"resolute: {error}")


def _serve(arguments: argparse.Namespace) -> int:
    """The exit code for Slurm."""
    root, stay, number = arguments.run_directory.absolute(), this_stay(), int(os.environ.get("SLURM_PROCID", 0))
    meeting = Meeting.of(root, stay)
    with open_inbox() as inbox:
        if number > 0:
            return NodeAgent(root, meeting, stay=stay, number=number).run(inbox)
        print(f"resolute: what follows stands in {SlurmPaths(root).log}", flush=True)
        return _lead(arguments, root, stay, meeting, inbox)


def _lead(arguments: argparse.Namespace, root: Path, stay: Stay, meeting: Meeting, inbox: Inbox) -> int:
    """On the first node; the exit code for Slurm."""
    driver = arguments.driver or [sys.executable, "-m", "launcher", "resume", str(root), "--here", "--try-again"]
    agent = HeadAgent(root, driver, stay=stay, lead_s=arguments.lead_s)
    if arguments.after and (leave := _leave_chain(root, _task_of(arguments.after))):
        return agent.decline(leave, after=arguments.after)
    try:
        return agent.run(inbox, environment=_convene(arguments, meeting))
    except Exception as error:
        agent.fail(error)
        raise
    finally:
        meeting.close()


def _convene(arguments: argparse.Namespace, meeting: Meeting) -> dict[str, str]:
    """Open the meeting; environment variables by which the driver finds it. Raises SlurmError."""
    nodes, per_node = _nodes(), arguments.workers_per_node
    workers = per_node or int(os.environ.get("SLURM_GPUS_ON_NODE", 1))
    meeting.open(Granted(nodes, workers, arguments.interface, arguments.join_timeout_s))
    # On a single node, too, where it is told how many workers one has: a range of nodes may have come down to that.
    return {VARIABLE: str(meeting.folder)} if len(nodes) > 1 or per_node else {}


def _leave_chain(root: Path, predecessor: str) -> Exit | None:
    """Whether this job has nothing to do, as the one before it tells, or Slurm of one cancelled in its queue."""
    leave = after_predecessor(records.ending_of(records.read(SlurmPaths(root).attempts), predecessor))
    if leave is None:
        entry = commands.queue_entries([predecessor])[0].get(predecessor)
        leave = after_predecessor(Ending.CANCELLED) if entry and entry.state == "CANCELLED" else None
    return leave


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launcher.slurm.agent", description="One node's part of a run.")
    parser.add_argument("run_directory", type=Path)
    parser.add_argument("--lead-s", type=float, default=120.0, help="seconds before the time limit at which it is told")
    parser.add_argument("--workers-per-node", type=int, help="as many as there are GPUs when absent")
    parser.add_argument("--interface", help="network interface by which nodes talk; chosen by route when absent")
    parser.add_argument("--join-timeout-s", type=float, default=300.0, help="seconds for all nodes to come together")
    parser.add_argument("--after", metavar="JOB", help="the job that this one follows; cancelled, it ends the chain")
    parser.add_argument("driver", nargs="*", help="the driver's command; `resolute resume RUN_DIR --here` when absent")
    return parser.parse_args()


def _nodes() -> tuple[str, ...]:
    """Of the allocation, in the order of their tasks. Raises SlurmError."""
    succeeded, words = commands.call("scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"])
    if not succeeded:
        raise SlurmError(
            f"scontrol does not name the job's nodes: {words}; the agent needs scontrol, slurm.conf and the munge "
            "socket: a container that it runs in must have all three bound into it"
        )
    return tuple(words.split())


if __name__ == "__main__":
    main()

"""A run under Ray Train on all nodes of an allocation: the driver's Ray on this one, which the others' agents join."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from launcher.attempts import NotUpError
from launcher.config import JobConfig
from launcher.coordinator import Done, Stop
from launcher.events import Event
from launcher.executors.local_ray import train_settings
from launcher.executors.private_ray import PrivateRay, private_ray
from launcher.executors.ray_environment import LOOPBACK
from launcher.executors.ray_run import RayRun
from launcher.file_system import LOCKS_ADVICE, lock_trouble_in
from launcher.paths import RunPaths
from launcher.planning import PlanError, feasible_world
from launcher.run_setup import RunSetup
from launcher.signals import stop_on_signal
from launcher.slurm import commands
from launcher.slurm.agent import this_stay
from launcher.slurm.meeting import Granted, Invitation, Meeting, absent_nodes
from launcher.slurm.node import gpus_granted, own_address

_POLL_S = 0.25
_SIGNALLED_WITHIN_S = 60.0
"""After a requeue: one of Slurm's, to the agent, is the driver's soon."""


class MeetingPlaceError(ValueError):
    """Workers on several nodes could not find each other in the run's directory."""


def run_across_nodes(setup: RunSetup, on_event: Callable[[Event], None], *, folder: Path) -> Stop | Done:
    """Carry the plan out, and tell how it ended. A signal stops it at the lease's end; for want of workers the job is
    queued again.

    `folder` is the agents' meeting. Raises a worker's error if it is one of ours, RunFailedError, NotUpError, which
    names the nodes that have not joined if the job cannot do without them, or MeetingPlaceError.
    """
    meeting = Meeting(folder)
    alone = meeting.granted.is_alone
    if not alone:
        require_locks(folder)
    stop_reasons: list[str] = []
    use_gpu = gpus_granted() > 0
    ray_run = RayRun(
        setup,
        use_gpu=use_gpu,
        logs=RunPaths(setup.root).logs / "ray",
        meeting_dir=None if alone else folder,
        on_event=on_event,
        stop_reasons=stop_reasons,
    )
    with stop_on_signal(stop_reasons.append):
        outcome = ray_run.carry_out(partial(_bring_up, setup, meeting, stop_reasons))
        if isinstance(outcome, Stop) and not stop_reasons:
            ask_for_other_nodes(this_stay().job_id, stop_reasons)
    return outcome


def ask_for_other_nodes(job_id: str, stop_reasons: Sequence[str]) -> None:
    """Have the job queued again that has too few workers left, and wait for the signal that ends it; if Slurm refuses,
    the run stays stopped."""
    accepted, _ = commands.requeue(job_id)
    deadline = time.monotonic() + _SIGNALLED_WITHIN_S
    while accepted and not stop_reasons and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def require_locks(folder: Path) -> None:
    """Raises MeetingPlaceError where files cannot be locked, without which torch's ranks do not find each other."""
    if trouble := lock_trouble_in(folder):
        raise MeetingPlaceError(f"{folder}: {trouble}, and a run on several nodes needs it: {LOCKS_ADVICE}")


def ray_settings(granted: Granted, *, stall_timeout_s: float) -> dict[str, str]:
    """For Ray's processes. Without an interface, what the job's environment says stands, and then what NCCL and gloo
    choose by themselves."""
    interface = "lo" if granted.is_alone else granted.interface or ""
    settings = train_settings(stall_timeout_s=stall_timeout_s, interface=interface)
    return {name: value for name, value in settings.items() if value}


@contextmanager
def _bring_up(setup: RunSetup, meeting: Meeting, stop_reasons: list[str]) -> Iterator[PrivateRay]:
    """A Ray of all nodes that come."""
    granted = meeting.granted
    settings = ray_settings(granted, stall_timeout_s=setup.job.run.stall_timeout_s)
    with private_ray(
        num_cpus=granted.workers_per_node,
        num_gpus=gpus_granted(),
        saved_logs=RunPaths(setup.root).logs / "ray",
        host=LOOPBACK if granted.is_alone else own_address(interface=granted.interface, towards=granted.nodes[-1]),
        settings=settings,
        start_s=granted.join_timeout_s,
    ) as home:
        meeting.invite(Invitation(home.address, home.token.read_text(), settings))
        try:
            await_nodes(meeting, home.address, setup.job, setup.plan.num_samples, stop_reasons)
            yield home
        finally:
            meeting.withdraw()


def await_nodes(meeting: Meeting, address: str, job: JobConfig, num_samples: int, stop_reasons: Sequence[str]) -> None:
    """Until all nodes have joined, a stop is asked for, or the time is up, when fewer may do. Raises NotUpError."""
    granted = meeting.granted
    deadline = time.monotonic() + granted.join_timeout_s
    while (absent := absent_nodes(granted, meeting.answers(address))) and not stop_reasons:
        if time.monotonic() > deadline:
            _do_without(absent, granted, job, num_samples)
            return
        time.sleep(_POLL_S)


def _do_without(absent: list[str], granted: Granted, job: JobConfig, num_samples: int) -> None:
    """Raises NotUpError if the job has too few workers without those nodes."""
    room = (len(granted.nodes) - len(absent)) * granted.workers_per_node
    try:
        feasible_world(job, num_samples=num_samples, available=room)
    except PlanError as error:
        raise NotUpError(
            f"no Ray on {', '.join(absent)} within {granted.join_timeout_s:g} s, and {error}; where nodes are that "
            "slow, give the profile a longer join_timeout_s"
        ) from error

"""The agents of a job's other nodes: each makes its node part of the driver's Ray, until the job is over."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from launcher.attempts import RunFailedError
from launcher.event_log import EventLogError
from launcher.executors.private_ray import joined_node
from launcher.paths import RunPaths
from launcher.slurm import records
from launcher.slurm.inbox import Inbox
from launcher.slurm.meeting import Answer, Invitation, Meeting
from launcher.slurm.node import NetworkError, gpus_granted, own_address
from launcher.slurm.node_loss import LossWatch
from launcher.slurm.records import SlurmPaths, Stay

_TICK_S = 1.0
_AGAIN_S = 10.0
"""Between two tries to join."""


class NodeAgent:
    """Holds the node of that number; signals do not concern it, as the first node's agent gets the same ones."""

    def __init__(self, root: Path, meeting: Meeting, *, stay: Stay, number: int):
        self._root = root
        self._meeting = meeting
        self._stay = stay
        self._number = number
        self._joined: Invitation | None = None
        self._node = contextlib.ExitStack()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._not_before_s = 0.0

    def run(self, inbox: Inbox) -> int:
        """Until the first node's agent is done, another stay has begun, or the job has lost this node; the exit code
        for Slurm."""
        losses = LossWatch(self._root, self._stay, number=self._number)
        with self._node:
            while not self._is_over() and not losses.is_cast_out():
                self._follow(self._invitation())
                inbox.await_signal(within_s=_TICK_S)
        return 0

    def _is_over(self) -> bool:
        """Not as long as nobody can tell: what cannot be read now may be at the next look."""
        try:
            return records.is_over(records.read(SlurmPaths(self._root).attempts), self._stay)
        except (OSError, EventLogError):
            return False

    def _invitation(self) -> Invitation | None:
        """The one that stands; the one that it has followed as long as nobody can tell."""
        try:
            return self._meeting.invitation()
        except OSError:
            return self._joined

    def _follow(self, invitation: Invitation | None) -> None:
        """Be where the invitation says, and nowhere else."""
        ended = self._keeper is not None and self._keeper.poll() is not None
        if self._joined is not None and (ended or invitation != self._joined):
            self._leave()
        if invitation is not None and self._joined is None and time.monotonic() >= self._not_before_s:
            self._join(invitation)

    def _join(self, invitation: Invitation) -> None:
        granted = self._meeting.granted
        self._not_before_s = time.monotonic() + _AGAIN_S
        try:
            host = own_address(interface=granted.interface, towards=invitation.address.rpartition(":")[0])
            node = joined_node(
                invitation.address,
                invitation.secret,
                host=host,
                num_cpus=granted.workers_per_node,
                num_gpus=gpus_granted(),
                saved_logs=RunPaths(self._root).logs / f"ray-node-{self._number}",
                settings=invitation.settings,
                start_s=granted.join_timeout_s,
            )
            self._keeper = self._node.enter_context(node)
        except (NetworkError, RunFailedError) as error:
            self._answer(invitation, str(error))
            return
        self._joined = invitation
        self._answer(invitation, "")

    def _answer(self, invitation: Invitation, trouble: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # The meeting is over.
            self._meeting.answer(self._number, Answer(invitation.address, trouble))

    def _leave(self) -> None:
        self._node.close()
        self._joined = self._keeper = None

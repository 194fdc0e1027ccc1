"""What the other nodes' agents do about a node that is lost to a job which goes on without it (--no-kill).

Slurm takes the node out of the job. If it is the first one, the batch script is gone with it, and Slurm (22.05) lets
the job hold its other nodes until its time limit: they have it queued again. A node that lives on without Slurm leaves.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from datetime import datetime
from enum import Enum
from pathlib import Path

from launcher.slurm import commands
from launcher.slurm.records import SlurmPaths, Stay

_EVERY_S = 30.0


class Fate(Enum):
    """What has become of a job, to one of its nodes."""

    AS_BEFORE = "the job has its first node and this one"
    HEADLESS = "the job has lost its first node"
    CAST_OUT = "the job has lost this node"


def fate_of(fields: dict[str, str], nodes: Collection[str], *, restarts: int, node: str) -> Fate:
    """To `node`, by what `scontrol show job` tells of a job, and the `nodes` that it has. Pure.

    `restarts` is that of the stay: of a later one nothing is known here.
    """
    if fields.get("JobState") != "RUNNING" or fields.get("Restarts") != str(restarts):
        return Fate.AS_BEFORE
    if node not in nodes:
        return Fate.CAST_OUT
    return Fate.AS_BEFORE if fields.get("BatchHost", node) in nodes else Fate.HEADLESS


class LossWatch:
    """Asks Slurm for the job's nodes every half minute on the node of number 1, and more rarely on each further one."""

    def __init__(self, root: Path, stay: Stay, *, number: int):
        self._log = SlurmPaths(root).log
        self._stay = stay
        self._every_s = _EVERY_S * number
        self._next_s = time.monotonic() + self._every_s

    def is_cast_out(self) -> bool:
        """Whether this node is the job's no more. A job that has lost its first node is queued again."""
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + self._every_s
        fate = self._ask()
        if fate is Fate.HEADLESS:
            self._queue_again()
        return fate is Fate.CAST_OUT

    def _ask(self) -> Fate:
        answered, told = commands.call("scontrol", "show", "job", "--oneliner", self._stay.job_id)
        fields = dict(reversed(re.findall(r"(\w+)=(\S+)", told))) if answered else {}
        listed, names = commands.call("scontrol", "show", "hostnames", fields.get("NodeList", ""))
        if not listed:
            return Fate.AS_BEFORE
        node = os.environ.get("SLURMD_NODENAME", "")
        return fate_of(fields, names.split(), restarts=self._stay.restarts, node=node)

    def _queue_again(self) -> None:
        """Where that is forbidden the job ends: it would hold its nodes for nothing."""
        accepted, words = commands.requeue(self._stay.job_id)
        self._say("its first node is lost: " + ("queued again" if accepted else words))
        if "disabled" in words:
            commands.cancel([self._stay.job_id])

    def _say(self, words: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._log.open("a") as log:
            log.write(f"{now} resolute agent: Slurm job {self._stay.job_id}: {words}\n")

"""Where the agents of one stay and their driver meet: a folder of the run directory that only their user can enter.

The first agent lays out what was granted; the driver invites the other nodes into its Ray; they answer. It goes with
the stay.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.paths import temporary
from launcher.slurm.records import SlurmPaths, Stay

_NAME = "meeting"
VARIABLE = "RESOLUTE_MEETING"
"""By this environment variable an agent tells its driver the folder."""


@dataclass(frozen=True)
class Granted:
    """What Slurm granted, the first node first."""

    nodes: tuple[str, ...]
    workers_per_node: int
    interface: str | None
    """The network interface by which nodes talk; None: the one by which they reach each other."""
    join_timeout_s: float
    """For the driver's Ray to come up, and then for the other nodes to join it."""

    @property
    def is_alone(self) -> bool:
        """Whether there is one node, so that nothing need be reached from elsewhere."""
        return len(self.nodes) == 1


@dataclass(frozen=True)
class Invitation:
    """To join the driver's Ray: `secret` is its token, `settings` are environment variables for its processes."""

    address: str
    secret: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What became of an invitation on one node; `trouble` is empty where it has joined."""

    address: str
    trouble: str


class Meeting:
    """The folder, and the files in it. Each has one writer, and is whole or absent."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def of(cls, root: Path, stay: Stay) -> Meeting:
        return cls(SlurmPaths(root).folder / f"{_NAME}-{stay.job_id}-{stay.restarts}")

    def open(self, granted: Granted) -> None:
        """Make the folder. Those of earlier stays that Slurm killed go: whoever is still there has been superseded."""
        for earlier in self.folder.parent.glob(f"{_NAME}-*"):
            if earlier != self.folder:
                shutil.rmtree(earlier, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write("granted.json", asdict(granted))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def granted(self) -> Granted:
        entries = json.loads((self.folder / "granted.json").read_bytes())
        return Granted(**{**entries, "nodes": tuple(entries["nodes"])})

    def invite(self, invitation: Invitation) -> None:
        """All nodes; it stands until the next one, or until it is withdrawn."""
        self._write("invitation.json", asdict(invitation))

    def withdraw(self) -> None:
        (self.folder / "invitation.json").unlink(missing_ok=True)

    def invitation(self) -> Invitation | None:
        entries = self._read("invitation.json")
        return Invitation(**entries) if entries else None

    def answer(self, node: int, answer: Answer) -> None:
        """For the node of that number, counted from 0."""
        self._write(f"node-{node}.json", asdict(answer))

    def answers(self, address: str) -> dict[int, Answer]:
        """Of those nodes that have answered this invitation, by their number."""
        found = {}
        for node in range(1, len(self.granted.nodes)):
            entries = self._read(f"node-{node}.json")
            if entries and entries["address"] == address:
                found[node] = Answer(**entries)
        return found

    def _write(self, name: str, entries: dict[str, object]) -> None:
        """For this user's eyes alone: one of the files holds a secret."""
        path = self.folder / name
        draft = temporary(path, pid=os.getpid())
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            entries: dict[str, Any] = json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None
        return entries


def drivers_meeting() -> Path | None:
    """Where this process's agent meets it; None where no agent has told."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def absent_nodes(granted: Granted, answers: dict[int, Answer]) -> list[str]:
    """A phrase for each node that has not joined, with what it says."""
    phrases = []
    for number, name in enumerate(granted.nodes):
        answer = answers.get(number)
        if number and (answer is None or answer.trouble):
            phrases.append(f"{name} ({answer.trouble if answer else 'has not answered'})")
    return phrases

"""The agent of another node, as far as it needs neither Ray nor Slurm."""

from __future__ import annotations

from pathlib import Path

from launcher.slurm import records
from launcher.slurm.inbox import Inbox
from launcher.slurm.meeting import Meeting
from launcher.slurm.node_agent import NodeAgent
from launcher.slurm.records import SlurmPaths, Stay

STAY = Stay("7", 0)


class MendingInbox(Inbox):
    """In which no signal comes; while it is waited for, the records become readable, and tell the end."""

    def __init__(self, attempts: Path):
        self.waits = 0
        self._attempts = attempts

    def await_signal(self, *, within_s: float) -> bool:
        self.waits += 1
        self._attempts.unlink()
        records.append(self._attempts, "agent_ended", job_id=STAY.job_id, restarts=STAY.restarts)
        return False


def test_records_that_cannot_be_read_now_are_read_at_the_next_look(tmp_path: Path) -> None:
    attempts = SlurmPaths(tmp_path).attempts
    attempts.parent.mkdir()
    attempts.write_text("what a file system gave in the place of a line\n")
    inbox = MendingInbox(attempts)
    assert NodeAgent(tmp_path, Meeting.of(tmp_path, STAY), stay=STAY, number=1).run(inbox) == 0
    assert inbox.waits == 1

"""Who runs in a run directory, as its claim tells it, and whether that process still lives.

The n-th start of a run claims the directory by making the file owner-0000n.json: with O_EXCL, which every file system
grants to one process alone, whether it knows locks or not. The highest number is the owner. It keeps counting in its
claim, and whoever wants the directory watches that count: clocks of two hosts are never compared. The owner removes
the claims below its own; its own stays when it ends, marked as released, so that no number is given twice.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECORD_BYTES: Final = 1024
"""Of every claim, whatever it says: written anew in place it needs no room on a full disk."""

Text = Annotated[str, Field(max_length=128)]


class Owner(BaseModel):
    """The content of a claim."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: Text
    kernel: Text
    """Drawn by the kernel as it boots; empty where there is none."""
    namespaces: Text
    """Those in which `pid` and `started` have their meaning: containers have their own."""
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    started: int
    """When the process began, in clock ticks after boot: tells it from a later one of the same pid."""
    since: Text
    """When the directory was claimed, in UTC, ISO 8601: for people alone."""
    slurm_job_id: Text | None
    run: Text
    """Drawn at the run's first start and handed on from claim to claim: tells its checkpoints from another run's."""
    token: Text
    """Drawn for this claim."""
    beat: int = 0
    """Counts up while the owner lives."""
    released: bool = False

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job_id}" if self.slurm_job_id else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    @property
    def how_to_stop(self) -> str:
        return f"scancel {self.slurm_job_id}" if self.slurm_job_id else f"kill {self.pid} on {self.host}"

    def to_bytes(self) -> bytes:
        text = self.model_dump_json().encode()
        assert len(text) < RECORD_BYTES, text
        return text.ljust(RECORD_BYTES - 1) + b"\n"


class State(Enum):
    """What can be told of an owner by looking once."""

    GONE = "gone"
    ALIVE = "alive"
    UNKNOWN = "unknown"
    """Elsewhere, or hidden: its count has to be watched."""


def parse_owner(content: bytes) -> Owner | None:
    """The owner that a claim names; None if it says nothing sensible, as one that is just being written."""
    try:
        return Owner.model_validate_json(content)
    except ValidationError:
        return None


def this_process(*, run: str = "") -> Owner:
    """What this process writes into a claim of its own; of a new run if no `run` is given."""
    _, started = _process(os.getpid()) or ("", 0)
    return Owner(
        host=socket.gethostname(),
        kernel=_kernel(),
        namespaces=_namespaces(),
        pid=os.getpid(),
        started=started,
        since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
        run=run or secrets.token_hex(8),
        token=secrets.token_hex(8),
    )


def state_of(owner: Owner) -> State:
    """Whether `owner` still holds its claim, as far as can be told from here without waiting."""
    if owner.released:
        return State.GONE
    place = (owner.host, owner.kernel, owner.namespaces)
    # A pid means something on the same kernel alone, and in the same namespaces; hosts may share a name.
    if not owner.kernel or place != (socket.gethostname(), _kernel(), _namespaces()):
        return State.UNKNOWN
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return State.GONE
    except PermissionError:
        pass  # Another user's, so it is there.
    process = _process(owner.pid)
    if process is None:
        return State.UNKNOWN
    state, started = process
    return State.ALIVE if started == owner.started and state not in ("Z", "X") else State.GONE


def _process(pid: int) -> tuple[str, int] | None:
    """State letter and start, in clock ticks after boot, of a process; None where /proc does not show it (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    after_name = stat[stat.rindex(")") + 1 :].split()  # A name may hold spaces and parentheses.
    return after_name[0], int(after_name[19])


def _kernel() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespaces() -> str:
    found = []
    for kind in ("pid", "time"):
        try:
            found.append(os.readlink(f"/proc/self/ns/{kind}"))
        except OSError:
            found.append(kind)
    return " ".join(found)

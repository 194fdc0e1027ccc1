"""A Slurm of three nodes for tests, and the questions that tests ask it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.slurm.slurm_conf import Options

_WITHIN_S = 600.0
"""For whatever a test awaits; requeues take 15 s on a quiet machine."""
_POLL_S = 0.1

_NOT_OVER = ("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "COMPLETING")
PROGRAMS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where Slurm's commands and daemons may lie; a user's own PATH may lack the latter."""
Seen = TypeVar("Seen")
Fields = dict[str, str]
"""What `scontrol show job` tells; empty for a job that Slurm has forgotten."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A running Slurm; `environment` is what its commands need to find it."""

    root: Path
    nodes: list[str]
    environment: dict[str, str]
    _requests: IO[str]
    _answers: IO[str]

    def run(self, *command: str | Path, check: bool = True, **options: Any) -> str:
        """The stdout of a command, by default one that succeeds."""
        options.setdefault("env", self.environment)
        done = subprocess.run(command, capture_output=True, text=True, **options)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def submit(self, *arguments: str | Path) -> str:
        """`sbatch ARGUMENTS`, which are a script or options with --wrap; the job's id."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *arguments)

    def preempt(self) -> str:
        """Have a job of a higher partition take all nodes; its id."""
        return self.submit("--partition=high", f"--nodes={len(self.nodes)}", "--exclusive", "--wrap=sleep 600")

    def preempt_until(self, job_id: str, state: str, **fields: str) -> str:
        """Preempt, and wait until a job is in a state; the id of the job that has taken the nodes."""
        taker = self.preempt()
        self.await_job(job_id, state, **fields)
        return taker

    def hurry(self, job_id: str) -> None:
        """Let a requeued job start at once, rather than when its old credentials have expired."""
        if self.job(job_id).get("Reason") == "BeginTime":
            self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now", check=False)

    def end_soon(self, job_id: str, *, within_s: int) -> None:
        """Move a job's time limit near; Slurm looks at limits every half minute or so."""
        end = datetime.now() + timedelta(seconds=within_s)
        self.run("scontrol", "update", f"JobId={job_id}", f"EndTime={end.isoformat(timespec='seconds')}")

    def nodes_of(self, job_id: str) -> list[str]:
        return self.run("scontrol", "show", "hostnames", self.job(job_id)["NodeList"]).split()

    def job(self, job_id: str) -> Fields:
        told = self.run("scontrol", "show", "job", "--oneliner", job_id, check=False)
        return dict(reversed(re.findall(r"(\w+)=(\S+)", told)))

    def await_job(self, job_id: str, state: str, **fields: str) -> Fields:
        """Wait until a job is in a state, with further fields having these values."""
        expected = {"JobState": state, **fields}

        def seen(job: Fields) -> bool:
            assert job.get("JobState") in (state, *_NOT_OVER), f"awaited {expected}; ended {job}"
            return expected.items() <= job.items()

        return self.wait(lambda: self.job(job_id), seen, f"{job_id}: {expected}")

    def wait(self, look: Callable[[], Seen], seen: Callable[[Seen], bool], what: str) -> Seen:
        """What `look` gives once it is as wanted."""
        deadline = time.monotonic() + _WITHIN_S
        while not seen(last := look()):
            assert time.monotonic() < deadline, f"awaited {what}; last seen {last}"
            time.sleep(_POLL_S)
        return last

    def clear(self) -> None:
        """Cancel every job, bring every node back, and wait until all is as at the start."""
        for job_id in self.run("squeue", "--noheader", "--format=%A").split():
            self.run("scancel", "--full", job_id, check=False)
        for node in self.nodes:
            self.ask("boot", node)
        for node in self.nodes:
            self.run("scontrol", "update", f"NodeName={node}", "State=resume", check=False)
        self.wait(self._node_states, lambda states: states == ["idle"] * len(self.nodes), "idle nodes")

    def _node_states(self) -> list[str]:
        return self.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T").split()

    def stray_processes(self, node: str) -> list[str]:
        """What runs on a node besides Slurm's daemon."""
        return [f"{name} ({pid})" for pid, name in self.ask("processes", node) if name != "slurmd"]

    def ask(self, verb: str, *arguments: str) -> Any:
        """Have the guardian do something; see there for what it can."""
        self._requests.write(json.dumps([verb, *arguments]) + "\n")
        self._requests.flush()
        return json.loads(self._answers.readline())


@contextlib.contextmanager
def running_slurm(options: Options) -> Iterator[Cluster]:
    """Start a Slurm, which ends with the context, or with this process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.guardian", json.dumps(dataclasses.asdict(options))],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": PROGRAMS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which then end the cluster.
    ) as guardian:
        assert guardian.stdin is not None
        assert guardian.stdout is not None
        up = guardian.stdout.readline()
        assert up, "Slurm did not start; its guardian's last words stand above"
        place = json.loads(up)
        root = Path(place["root"])
        environment = {**os.environ, "PATH": PROGRAMS, "SLURM_CONF": str(root / "slurm.conf")}
        yield Cluster(root, place["nodes"], environment, guardian.stdin, guardian.stdout)
        guardian.stdin.close()

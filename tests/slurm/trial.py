"""A run of the real driver and a real Ray on the tests' Slurm, submitted as users do, and what it leaves behind."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from launcher.event_log import LoggedEvent
from launcher.paths import RunPaths
from launcher.run_directory import read_owner
from launcher.slurm.records import SlurmPaths, read
from tests.integration.toy import write_job
from tests.slurm.cluster import Cluster, Fields
from tests.slurm.traced_work import FOLDER, WorkerTraces, hurry_file, read_traces

_ROOT = Path(__file__).parents[2]
_DAEMONS = ("slurmd", "slurmstepd")
_POLL_S = 0.05
_SITE: dict[str, Any] = {
    "cpus_per_node": 2,
    "workers_per_node": 2,
    "nodes": 2,
    "time_limit_minutes": 10,
    "signal_lead_s": 30,
}
PHASES = [
    {"epochs": 10, "resolution": 12, "batch_per_worker": 2, "crop_scale": [0.5, 1.0]},
    {"epochs": 2, "resolution": 16, "batch_per_worker": 2, "crop_scale": [0.5, 1.0], "warmup_epochs": 1},
]
"""With four workers 31 steps an epoch and a lease for each: a stop falls between any two of them."""


class Trial:
    """A run named `name`, of two nodes with two workers each unless `site` says otherwise."""

    def __init__(self, slurm: Cluster, folder: Path, data: Path, name: str, *, site: Mapping[str, Any]):
        self.slurm = slurm
        self.folder = folder / name
        self.root = self.folder / "run"
        self.job_ids: list[str] = []
        self.allocated: list[tuple[float, int]] = []
        """When each later stay got its nodes, in seconds since 1970, and how many attempts there were before."""
        self.departures: list[Departure] = []
        self.folder.mkdir(parents=True)
        self._site, self._data = site, data

    def beside(self) -> Trial:
        """Another run, which trains the same on the nodes of this one."""
        here = {"sbatch_options": {"nodelist": ",".join(self.slurm.nodes_of(self.job_id))}}
        name = f"{self.folder.name}-too"
        other = Trial(self.slurm, self.folder.parent, self._data, name, site={**self._site, **here})
        other.submit()
        return other

    @property
    def job_id(self) -> str:
        return self.job_ids[-1]

    @property
    def attempts(self) -> list[WorkerTraces]:
        return read_traces(self.folder / "traces")

    @property
    def job(self) -> Fields:
        return self.slurm.job(self.job_id)

    def submit(self) -> None:
        """As a user does, but for the traces."""
        environment = {
            "PYTHONPATH": f"{Path(__file__).parent / 'traced'}:{_ROOT}",
            FOLDER: str(self.folder / "traces"),
            "OMP_NUM_THREADS": "1",
        }
        write_job(self.folder, self._data, phases=PHASES, checkpoint={"every_epochs": 4})
        site = self.folder / "site.yaml"
        site.write_text(yaml.safe_dump({**_SITE, **self._site, "environment": environment}))
        self._note(self.resolute("submit", "toy.yaml", "--profile", str(site), "--run-dir", "run"))

    def resume(self) -> None:
        """As a user does with a run that ended before its plan did."""
        self._note(self.resolute("resume", "run"))

    def _note(self, printed: str) -> None:
        self.job_ids.append(printed.split("submitted as Slurm job ")[1].partition(";")[0])

    def resolute(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "launcher", *arguments]
        environment = {**self.slurm.environment, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def events(self, name: str) -> list[LoggedEvent]:
        return [event for event in read(RunPaths(self.root).events) if event["event"] == name]

    def records(self, name: str) -> list[LoggedEvent]:
        return [line for line in read(SlurmPaths(self.root).attempts) if line["event"] == name]

    @property
    def last_words(self) -> str:
        """The end of what the run's attempts said."""
        log = SlurmPaths(self.root).log
        return "\n".join(log.read_text().splitlines()[-12:]) if log.exists() else ""

    def driver(self) -> psutil.Process:
        owner = read_owner(RunPaths(self.root))
        assert owner is not None
        return psutil.Process(owner.pid)

    def await_steps(self, number: int, *, after: int = 0) -> None:
        """Wait until an attempt that follows `after` others has trained so many steps."""

        def look() -> tuple[str, list[int]]:
            self.slurm.hurry(self.job_id)
            return self.job.get("JobState", ""), [attempt.num_steps for attempt in self.attempts]

        def seen(found: tuple[str, list[int]]) -> bool:
            state, steps = found
            assert state not in ("COMPLETED", "FAILED", "TIMEOUT"), f"{self.folder.name}: {state} after {steps} steps"
            return any(each >= number for each in steps[after:])

        self.slurm.wait(look, seen, f"{number} steps of {self.folder.name}")

    def await_stay(self, number: int) -> None:
        """Wait until Slurm has given the job nodes for the `number`-th time after the first."""

        def look() -> Fields:
            self.slurm.hurry(self.job_id)
            return self.job

        before = len(self.attempts)
        job = self.slurm.wait(
            look,
            lambda job: job["Restarts"] == str(number) and job["JobState"] == "RUNNING",
            f"restart {number} of {self.folder.name}",
        )
        self.allocated.append((datetime.fromisoformat(job["StartTime"]).timestamp(), before))

    def await_end(self) -> str:
        """Wait until Slurm has done with the job, which is slow no more; the state that it gives it."""
        hurry_file(self.folder / "traces").touch()

        def look() -> str:
            self.slurm.hurry(self.job_id)
            return self.job["JobState"]

        over = ("COMPLETED", "FAILED", "CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL")
        return self.slurm.wait(look, lambda state: state in over, f"the end of {self.folder.name}")

    def watch_departure(self) -> None:
        """Note when all processes that run on the job's nodes now are gone, from the moment of this call on."""
        self.departures.append(Departure(self.processes()))

    def processes(self) -> list[psutil.Process]:
        """All on the job's nodes, but for Slurm's daemons."""
        found = []
        for node in self.slurm.nodes_of(self.job_id):
            for pid, name in self.slurm.ask("processes", node):
                if name not in _DAEMONS and psutil.pid_exists(pid):
                    found.append(psutil.Process(pid))
        return found

    def preempt(self) -> None:
        """By a higher partition, which has the nodes until the run waits for them again or is over."""
        stays = len(self.records("agent_started"))
        self.watch_departure()
        taker = self.slurm.preempt()
        self.slurm.wait(
            lambda: self.job,
            lambda job: job["JobState"] == "PREEMPTED" or (job["JobState"], job["Restarts"]) == ("PENDING", str(stays)),
            f"the preemption of {self.folder.name}",
        )
        self.slurm.run("scancel", taker)


class Departure:
    """When processes came to be gone: noted beside, whatever the main thread waits for."""

    def __init__(self, processes: Sequence[psutil.Process]):
        self.began = time.time()
        self._ended: float | None = None
        self._thread = threading.Thread(target=self._watch, args=(processes,), daemon=True)
        self._thread.start()

    def _watch(self, processes: Sequence[psutil.Process]) -> None:
        while any(map(_lives, processes)):
            time.sleep(_POLL_S)
        self._ended = time.time()

    @property
    def ended(self) -> float | None:
        """In seconds since 1970; None while one of them lives."""
        return self._ended


def _lives(process: psutil.Process) -> bool:
    """Whether it has not ended; after a power cut the dead may wait long for the guardian, who inherits them."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stray(slurm: Cluster) -> list[str]:
    """What runs on any node besides Slurm's daemons."""
    return [
        f"{name} ({pid})" for node in slurm.nodes for pid, name in slurm.ask("processes", node) if name not in _DAEMONS
    ]

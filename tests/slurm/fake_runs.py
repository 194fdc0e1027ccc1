"""Runs of the fake driver under an agent, on the tests' Slurm."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from launcher.event_log import LoggedEvent
from launcher.paths import RunPaths
from launcher.run_directory import read_owner
from launcher.slurm import records
from launcher.slurm.records import SlurmPaths
from tests.slurm.cluster import Cluster
from tests.slurm.fake_driver import FINAL, expected_digest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class FakeRun:
    """A submitted run of `samples` samples, which goes on until it may end, however slow Slurm or the machine is."""

    slurm: Cluster
    root: Path
    job_id: str
    samples: int

    @classmethod
    def submit(
        cls,
        slurm: Cluster,
        root: Path,
        *sbatch: str,
        samples: int = 20,
        step_s: float = 0.05,
        agent: str = "",
        driver: str = "",
    ) -> FakeRun:
        """`sbatch` are options of sbatch, `agent` and `driver` further ones of the agent and the fake driver.

        Two nodes unless told otherwise.
        """
        python = shlex.quote(sys.executable)
        command = (
            f"srun --kill-on-bad-exit=0 --wait=60 {python} -m launcher.slurm.agent {agent} {root} -- "
            f"{python} -m tests.slurm.fake_driver {root} --samples {samples} --step-s {step_s} "
            f"--end-once {_may_end(root)} {driver}"
        )
        defaults = ("--nodes=2", "--ntasks-per-node=1", "--signal=USR2@30", "--requeue", f"--chdir={ROOT}")
        printed = f"--output={root}.printed.txt"
        job_id = slurm.submit(*defaults, printed, "--open-mode=append", *sbatch, f"--wrap={command}")
        return cls(slurm, root, job_id, samples)

    def follow(self, *sbatch: str) -> FakeRun:
        """Submit the next job of the chain."""
        after = self.job_id
        dependency = f"--dependency=afterany:{after}"
        return self.submit(self.slurm, self.root, dependency, *sbatch, samples=self.samples, agent=f"--after {after}")

    def records(self, event: str) -> list[LoggedEvent]:
        return [line for line in records.read(SlurmPaths(self.root).attempts) if line["event"] == event]

    def events(self, name: str) -> list[LoggedEvent]:
        return [line for line in records.read(RunPaths(self.root).events) if line["event"] == name]

    def await_training(self, *, attempts: int = 1) -> None:
        """Wait until that many attempts have begun to train."""

        def look() -> list[LoggedEvent]:
            self.slurm.hurry(self.job_id)
            return self.events("workers_ready")

        self.slurm.wait(look, lambda ready: len(ready) >= attempts, f"{attempts} attempts")

    def await_end(self, *, agents: int = 1) -> list[str]:
        """Wait until that many agents have ended; how each did."""
        ended = self.slurm.wait(
            lambda: self.records("agent_ended"), lambda ended: len(ended) >= agents, f"the end of {agents} agents"
        )
        return [line["ending"] for line in ended]

    def assert_done(self) -> None:
        """It may end, and does so as if nothing had happened: no sample lost or repeated."""
        _may_end(self.root).touch()
        self.slurm.hurry(self.job_id)
        self.slurm.await_job(self.job_id, "COMPLETED")
        final = json.loads((self.root / FINAL).read_text())
        assert final == {"samples": self.samples, "digest": expected_digest(self.samples)}

    def assert_nothing_runs(self) -> None:
        for node in self.slurm.nodes:
            self.slurm.wait(
                partial(self.slurm.stray_processes, node), lambda names: "python" not in str(names), "no agent"
            )

    @property
    def log(self) -> str:
        return SlurmPaths(self.root).log.read_text()

    @property
    def driver_pid(self) -> int:
        owner = read_owner(RunPaths(self.root))
        assert owner is not None
        return owner.pid

    @property
    def causes(self) -> list[str]:
        """What Slurm's answers meant, one after the other."""
        return [cause for cause, _ in groupby(line["cause"] for line in self.records("slurm_asked"))]


def _may_end(root: Path) -> Path:
    return root.with_name(f"{root.name}.may-end")

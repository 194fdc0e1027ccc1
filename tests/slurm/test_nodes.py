"""Runs over several nodes, with the real driver and a real Ray: two nodes of two CPU workers each."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from launcher.event_log import LoggedEvent
from launcher.paths import RunPaths
from launcher.slurm.records import SlurmPaths, read
from tests.integration.toy import final_sums, write_job
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.timeout(600)

SITE = """\
cpus_per_node: 2
workers_per_node: 2
nodes: 2
time_limit_minutes: 10
signal_lead_s: 30
"""
JOB = ("phases.0.epochs=12", "phases.0.global_batch=4", "phases.1.epochs=1", "checkpoint.every_epochs=1000")
"""62 steps an epoch, and a lease for each: a stop falls between any two of them."""


def submit(slurm: Cluster, folder: Path, run_dir: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "launcher", "submit", "toy.yaml", "--profile", "site.yaml", "--run-dir", run_dir]
    done = subprocess.run([*command, *arguments], cwd=folder, env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("submitted as Slurm job ")[1].partition(";")[0]


def events(root: Path, name: str) -> list[LoggedEvent]:
    return [event for event in read(RunPaths(root).events) if event["event"] == name]


@pytest.fixture
def folder(tmp_path: Path, drawn: Path) -> Path:
    write_job(tmp_path, drawn)
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path


def test_preempted_on_two_nodes_the_weights_are_those_of_an_undisturbed_run(slurm: Cluster, folder: Path) -> None:
    undisturbed = submit(slurm, folder, "undisturbed", *JOB)
    slurm.await_job(undisturbed, "COMPLETED")
    job_id = submit(slurm, folder, "preempted", *JOB)
    root = folder / "preempted"
    slurm.wait(partial(events, root, "epoch_trained"), lambda seen: len(seen) > 2, "epochs")
    slurm.run("scancel", slurm.preempt_until(job_id, "PENDING", Restarts="1"))
    slurm.hurry(job_id)
    slurm.await_job(job_id, "COMPLETED", Restarts="1")
    begun = events(root, "attempt_started")
    assert [event["world_size"] for event in begun] == [4, 4]
    assert begun[1]["checkpoint"] is not None
    assert final_sums(RunPaths(root)) == final_sums(RunPaths(folder / "undisturbed"))
    assert not list(SlurmPaths(root).folder.glob("meeting-*"))

"""Data staged to the disks of a real Slurm's nodes, and the doctor's look at that Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli.doctor import examine_slurm
from launcher.doctor import Outcome
from launcher.event_log import LoggedEvent, read_events
from launcher.paths import RunPaths
from launcher.slurm.profile import Profile
from tests.integration.toy import write_job
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.timeout(600)

LONG = ("phases.0.epochs=400", "checkpoint.every_epochs=1000")
"""A first phase that lasts until something happens to it."""

Resolute = Callable[..., str]


@pytest.fixture
def resolute(slurm: Cluster, tmp_path: Path, drawn: Path) -> Resolute:
    """`resolute ARGUMENTS` beside the job toy.yaml and a profile whose scratch disks are folders named after nodes."""
    write_job(tmp_path, drawn)
    site = f"scratch: {tmp_path}/$SLURMD_NODENAME\ncpus_per_node: 2\nworkers_per_node: 1\ntime_limit_minutes: 10\n"
    (tmp_path / "site.yaml").write_text(site)

    def call(*arguments: object) -> str:
        command = [sys.executable, "-m", "launcher", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=slurm.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def staged(run: Path) -> list[LoggedEvent]:
    events = RunPaths(run).events
    return [event for event in read_events(events) if event["event"] == "data_staged"] if events.exists() else []


def submit(resolute: Resolute, run: Path, *arguments: object) -> str:
    printed = resolute("submit", "toy.yaml", "--profile", "site.yaml", "--run-dir", run, *arguments)
    return printed.split("submitted as Slurm job ")[1].partition(";")[0]


def test_a_requeued_job_uses_the_copies_of_its_first_start(slurm: Cluster, resolute: Resolute, tmp_path: Path) -> None:
    run, (node, *_) = tmp_path / "runs" / "requeued", slurm.nodes
    job_id = submit(resolute, run, "--set", f"sbatch_options={{nodelist: {node}}}", *LONG)
    slurm.wait(lambda: len(staged(run)), lambda count: count == 2, "two files staged")
    slurm.run("scontrol", "requeue", job_id)
    slurm.await_job(job_id, "PENDING", Restarts="1")
    slurm.hurry(job_id)
    slurm.wait(lambda: len(staged(run)), lambda count: count == 4, "both files staged again")
    assert [event["reused"] for event in staged(run)] == [False, False, True, True]
    assert {Path(event["copy"]).parents[1] for event in staged(run)} == {tmp_path / node}


def test_each_node_of_a_run_has_its_own_copy(slurm: Cluster, resolute: Resolute, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "two-nodes"
    job_id = submit(resolute, run, "--set", "nodes=2", *LONG)
    slurm.wait(lambda: len(staged(run)), lambda count: count == 4, "two files staged on two nodes")
    folders = {Path(event["copy"]).parents[1] for event in staged(run)}
    assert folders == {tmp_path / node for node in slurm.nodes_of(job_id)}
    assert {event["reused"] for event in staged(run)} == {False}


def test_the_doctor_finds_on_a_node_what_a_run_needs_and_how_slurm_is_set_up(
    slurm: Cluster, resolute: Resolute, tmp_path: Path
) -> None:
    doctor = (sys.executable, "-m", "launcher", "doctor", str(tmp_path), "--profile", str(tmp_path / "site.yaml"))
    found = {finding["check"]: finding for finding in json.loads(slurm.run("srun", *doctor, "--format", "json"))}
    config = slurm.run("scontrol", "show", "config")
    assert found["slurm"]["found"].removeprefix("version ") in config
    assert found["ProctrackType"]["found"].partition(":")[0] in config
    assert {"KillWait", "JobRequeue", "PreemptMode", "GraceTime", "rename", "torch", "ray"} <= found.keys()
    assert "failed" not in {finding["outcome"] for finding in found.values()}


def test_the_doctor_misses_the_profiles_partition(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm.environment[name])
    gone = Profile(partition="gone", cpus_per_node=1, workers_per_node=1, time_limit_minutes=5)
    (missing,) = (finding for finding in examine_slurm(gone) if finding.check == "partition")
    assert missing.outcome is Outcome.FAILED
    assert missing.found.startswith("gone: ")

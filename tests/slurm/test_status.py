"""`resolute status` against squeue in every state that Slurm can be brought to here, and with accounting's answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.slurm.profile import Profile
from launcher.slurm.submissions import note_submission
from tests.slurm.cluster import Cluster

PROFILE = Profile.model_validate({"cpus_per_node": 1, "workers_per_node": 1, "time_limit_minutes": 10})
SLEEP = "--wrap=exec sleep 600"


def told(folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """What status says, in JSON, of all runs below a folder."""
    command = [sys.executable, "-m", "launcher", "status", str(folder), "--format", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs: list[dict[str, Any]] = json.loads(done.stdout)
    return runs


def status(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """State by run."""
    return {Path(run["run"]).name: run["state"] for run in told(folder, environment)}


def note(folder: Path, jobs: dict[str, str]) -> None:
    """As if these jobs had been submitted for runs of those names."""
    for name, job_id in jobs.items():
        (folder / name).mkdir(parents=True)
        note_submission(folder / name, job_id=job_id, name=name, profile=PROFILE)


def test_status_says_what_squeue_says_in_every_state(slurm: Cluster, tmp_path: Path) -> None:
    first, second, third = slurm.nodes

    def submit(node: str, *options: str) -> str:
        return slurm.submit(f"--nodelist={node}", *options)

    jobs = {
        "TIMEOUT": submit(first, SLEEP),
        "COMPLETED": submit(first, "--wrap=true"),
        "FAILED": submit(first, "--wrap=exit 3"),
        "CANCELLED": submit(first, SLEEP),
        "SUSPENDED": submit(first, SLEEP),
        "NODE_FAIL": submit(second, "--no-requeue", SLEEP),
        "PREEMPTED": submit(third, "--partition=cancelnow", SLEEP),
    }
    for name in ("TIMEOUT", "CANCELLED", "SUSPENDED", "NODE_FAIL", "PREEMPTED"):
        slurm.await_job(jobs[name], "RUNNING")
    slurm.end_soon(jobs["TIMEOUT"], within_s=1)
    slurm.run("scancel", jobs["CANCELLED"])
    slurm.run("scontrol", "suspend", jobs["SUSPENDED"])
    taker = submit(third, "--partition=high", "--cpus-per-task=4", SLEEP)
    slurm.wait(lambda: slurm.job(jobs["PREEMPTED"])["JobState"], lambda state: state == "PREEMPTED", "a preemption")
    jobs["RUNNING"] = submit(first, SLEEP)
    jobs["held"] = submit(first, "--requeue", SLEEP)
    slurm.await_job(jobs["held"], "RUNNING")
    slurm.run("scontrol", "requeuehold", jobs["held"])
    jobs["PENDING"] = submit(first, "--hold", SLEEP)
    slurm.ask("kill_slurmd", second)
    slurm.run("scontrol", "update", f"NodeName={second}", "State=down", "Reason=test")
    note(tmp_path, jobs)
    expected = {name: "PENDING" if name == "held" else name for name in jobs}

    def squeue() -> dict[str, str]:
        lines = slurm.run("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        states = dict(line.split() for line in lines)
        return {name: states[job_id] for name, job_id in jobs.items()}

    slurm.wait(squeue, lambda states: states == expected, f"{expected}")
    assert status(tmp_path, slurm.environment) == expected
    # A job whose node cannot tell that it has ended is completing, until Slurm gives the node up.
    slurm.run("scancel", taker)
    completing = submit(third, "--no-requeue", SLEEP)
    slurm.await_job(completing, "RUNNING")
    slurm.ask("kill_slurmd", third)
    slurm.run("scancel", completing)
    note(tmp_path, {"completing": completing})
    jobs["completing"] = completing
    before, seen, _ = slurm.wait(
        lambda: (squeue(), status(tmp_path, slurm.environment), squeue()),
        lambda seen: seen[0] == seen[2],
        "the same states before and after",
    )
    assert seen == before


def test_a_running_job_is_not_said_to_be_over_while_the_controller_cannot_be_reached(
    slurm: Cluster, tmp_path: Path
) -> None:
    job_id = slurm.submit(SLEEP)
    slurm.await_job(job_id, "RUNNING")
    note(tmp_path / "runs", {"a": job_id})
    settings = re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", (slurm.root / "slurm.conf").read_text())
    (tmp_path / "slurm.conf").write_text(f"{settings}\nMessageTimeout=2\n")
    (run,) = told(tmp_path / "runs", {**slurm.environment, "SLURM_CONF": str(tmp_path / "slurm.conf")})
    assert (run["state"], run["is_live"], run["resumable"]) == ("UNKNOWN", None, False)
    assert "Unable to contact slurm controller" in run["trouble"]
    (run,) = told(tmp_path / "runs", slurm.environment)
    assert (run["state"], run["is_live"], run["trouble"]) == ("RUNNING", True, None)


def test_a_job_that_only_accounting_remembers_has_the_state_that_sacct_tells(slurm: Cluster, tmp_path: Path) -> None:
    """By a stand-in that answers as sacct does by its manual: nothing here keeps accounts."""
    note(tmp_path / "runs", {"cancelled": "900001", "timed-out": "900002", "unknown": "900003", "known": "900004"})
    job_id = slurm.submit("--hold", SLEEP)
    note_submission(tmp_path / "runs" / "known", job_id=job_id, name="known", profile=PROFILE)
    asked = tmp_path / "asked"
    sacct = tmp_path / "bin" / "sacct"
    sacct.parent.mkdir()
    sacct.write_text(f"#!/bin/sh\necho \"$@\" > {asked}\necho '900001|CANCELLED by 1000'\necho '900002|TIMEOUT'\n")
    sacct.chmod(0o755)
    environment = {**slurm.environment, "PATH": f"{sacct.parent}:{slurm.environment['PATH']}"}
    states = status(tmp_path / "runs", environment)
    assert states == {"cancelled": "CANCELLED", "timed-out": "TIMEOUT", "unknown": "UNKNOWN", "known": "PENDING"}
    options = asked.read_text().split()
    assert options[:4] == ["--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
    assert {"900001", "900002", "900003"} <= set(options[4].removeprefix("--jobs=").split(","))

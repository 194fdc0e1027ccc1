"""`resolute submit`, `status`, `logs` and `cancel` on a real Slurm, with the real driver on a small job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from launcher.event_log import LoggedEvent
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.slurm.profile import Profile
from launcher.slurm.records import SlurmPaths, read
from launcher.slurm.submissions import note_submission
from tests.integration.toy import write_job
from tests.slurm.cluster import Cluster

SCRIPT = Path(__file__).parents[2] / "slurm" / "resolute.sbatch"
SITE = "cpus_per_node: 2\nworkers_per_node: 1\ntime_limit_minutes: 10\nsignal_lead_s: 30\n"
LONG = ("phases.0.epochs=400", "checkpoint.every_epochs=1000")
"""A first phase that lasts until something happens to it."""

Resolute = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def resolute(slurm: Cluster, tmp_path: Path, drawn: Path) -> Resolute:
    """`resolute ARGUMENTS` in a folder with the job toy.yaml and the profile site.yaml."""
    write_job(tmp_path, drawn)
    (tmp_path / "site.yaml").write_text(SITE)

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launcher", *map(str, arguments)]
        environment = {**slurm.environment, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def submit(resolute: Resolute) -> Callable[..., str]:
    """Submit the job; its id, or the first of a chain."""

    def call(*arguments: object) -> str:
        printed = resolute("submit", "toy.yaml", "--profile", "site.yaml", *arguments).stdout
        return printed.split("submitted as Slurm job ")[1].partition(";")[0].partition(",")[0]

    return call


def standings(resolute: Resolute, target: object) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(resolute("status", target, "--format", "json").stdout)
    return runs


def test_a_submitted_run_is_carried_out_and_tells_what_to_type_next(
    slurm: Cluster, resolute: Resolute, tmp_path: Path
) -> None:
    printed = resolute("submit", "toy.yaml", "--profile", "site.yaml", "--run-dir", "runs/a").stdout
    for verb in ("status", "logs -f", "cancel"):
        assert f"resolute {verb} runs/a\n" in printed
    job_id = printed.split("submitted as Slurm job ")[1].partition(";")[0]
    assert slurm.job(job_id)["Comment"] == str(tmp_path / "runs" / "a")
    followed = resolute("logs", "-f", "runs/a").stdout
    slurm.await_job(job_id, "COMPLETED")
    assert "--- attempt 1 " in followed
    assert followed.rstrip().endswith("done, exit code 0")
    (stands,) = standings(resolute, job_id)
    assert (stands["state"], stands["explanation"], stands["resumable"]) == ("COMPLETED", "done", False)


def test_status_says_what_squeue_says_from_the_queue_to_the_cancellation_and_after_slurm_has_forgotten(
    slurm: Cluster, resolute: Resolute, submit: Callable[..., str], tmp_path: Path
) -> None:
    taker = slurm.preempt()
    job_id = submit("--run-dir", "runs/b", *LONG)
    assert [s["state"] for s in standings(resolute, "runs/b")] == [state_in_squeue(slurm, job_id)] == ["PENDING"]
    slurm.run("scancel", taker)
    slurm.await_job(job_id, "RUNNING")
    assert [s["state"] for s in standings(resolute, "toy")] == [state_in_squeue(slurm, job_id)] == ["RUNNING"]
    slurm.wait(RunPaths(tmp_path / "runs" / "b").events.exists, bool, "a start")
    assert resolute("cancel", job_id).stdout == f"cancelled Slurm job {job_id}\n"
    slurm.await_job(job_id, "CANCELLED")
    (stands,) = standings(resolute, job_id)
    assert (stands["state"], stands["resumable"]) == ("CANCELLED", True)
    assert "resolute resume runs/b" in resolute("status", "runs/b").stdout
    note_submission(tmp_path / "runs" / "b", job_id="999999", name="toy", profile=Profile.model_validate(SITE_KEYS))
    (forgotten,) = standings(resolute, "runs/b")
    assert (forgotten["job_id"], forgotten["state"]) == ("999999", "UNKNOWN")


def test_a_sweep_is_an_array_of_runs(slurm: Cluster, resolute: Resolute, submit: Callable[..., str]) -> None:
    job_id = submit("--run-dir", "runs/c", "--sweep", "seed=1,2", "phases.0.epochs=1")
    look = partial(standings, resolute, "runs/c")
    runs = slurm.wait(look, lambda runs: {run["state"] for run in runs} == {"COMPLETED"}, "both runs' end")
    assert [run["job_id"] for run in runs] == [f"{job_id}_0", f"{job_id}_1"]
    assert [Path(run["run"]).name for run in runs] == ["0-seed=1", "1-seed=2"]
    assert [run["run"] for run in standings(resolute, f"{job_id}_1")] == [runs[1]["run"]]
    assert "name one of" in resolute("logs", "runs/c", code=2).stderr


def test_a_cancelled_run_ends_its_chain(slurm: Cluster, resolute: Resolute, submit: Callable[..., str]) -> None:
    first = submit("--run-dir", "runs/d", "--chain", 2, *LONG)
    second = str(int(first) + 1)
    assert slurm.job(second)["Dependency"].startswith(f"afterany:{first}")
    slurm.await_job(first, "RUNNING")
    slurm.run("scancel", first)
    assert slurm.await_job(second, "FAILED")["ExitCode"] == "3:0"
    assert "was cancelled, so this one ends, too" in resolute("logs", "runs/d").stdout


def test_a_cancelled_run_is_resumed_by_another_job(
    slurm: Cluster, resolute: Resolute, submit: Callable[..., str], tmp_path: Path
) -> None:
    first = submit("--run-dir", "runs/g", *LONG)

    def of(name: str) -> list[LoggedEvent]:
        return [event for event in read(RunPaths(tmp_path / "runs" / "g").events) if event["event"] == name]

    slurm.wait(lambda: of("epoch_trained"), bool, "an epoch")
    resolute("cancel", "runs/g")
    slurm.await_job(first, "CANCELLED")
    second = resolute("resume", first).stdout.split("submitted as Slurm job ")[1].partition(";")[0]
    begun = slurm.wait(lambda: of("attempt_started"), lambda begun: len(begun) == 2, "the second job's attempt")
    assert [event["checkpoint"] is None for event in begun] == [True, False]
    assert [(run["job_id"], run["state"]) for run in standings(resolute, first)] == [(second, "RUNNING")]


def test_a_directory_whose_job_is_queued_takes_no_second_one(
    slurm: Cluster, resolute: Resolute, submit: Callable[..., str]
) -> None:
    slurm.preempt()
    job_id = submit("--run-dir", "runs/e")
    refused = resolute("submit", "toy.yaml", "--profile", "site.yaml", "--run-dir", "runs/e", code=2)
    assert f"runs/e belongs to Slurm job {job_id} (PENDING)" in refused.stderr


def test_neither_a_dry_run_nor_a_test_nor_a_refusal_leaves_anything(
    slurm: Cluster, resolute: Resolute, tmp_path: Path
) -> None:
    submission = ("submit", "toy.yaml", "--profile", "site.yaml")
    assert resolute(*submission, "--dry-run").stdout.startswith("#!/bin/bash\n")
    hasty = resolute(*submission, "--dry-run", "--set", "grace_s=0.5")
    assert hasty.stdout.startswith("#!/bin/bash\n")
    assert hasty.stderr.startswith("resolute: grace_s: 0.5 s are less than the ")
    assert "to start at" in resolute(*submission, "--test-only").stdout
    refused = resolute(*submission, "--test-only", "--set", "partition=absent", code=2)
    assert "sbatch would refuse the job: " in refused.stderr
    assert resolute(*submission, "phases.0.epochs=0", code=2).stderr.startswith("resolute: toy.yaml: 1 mistake")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.yaml", "toy.yaml"]
    assert slurm.run("squeue", "--noheader") == ""


def test_what_sbatch_refuses_is_told_in_its_words(resolute: Resolute) -> None:
    refused = resolute("submit", "toy.yaml", "--profile", "site.yaml", "--set", "partition=absent", code=2)
    assert "resolute: sbatch refused the job: " in refused.stderr
    assert "invalid partition" in refused.stderr


def test_a_job_whose_setup_fails_trains_nothing_and_tells_the_line(
    slurm: Cluster, resolute: Resolute, submit: Callable[..., str], tmp_path: Path
) -> None:
    job_id = submit("--run-dir", "runs/k", "--set", "setup=[source absent/bin/activate]")
    slurm.await_job(job_id, "FAILED")
    assert "as this line of its setup failed: source absent/bin/activate\n" in resolute("logs", "runs/k").stderr
    assert not SlurmPaths(tmp_path / "runs" / "k").attempts.exists()


def test_in_a_container_with_its_own_python_a_job_finds_the_batches_that_are_left_open(
    slurm: Cluster, submit: Callable[..., str], tmp_path: Path
) -> None:
    """A container is whatever command runs the rest; plain `python` is that of the environment set up for it."""
    container = tmp_path / "container"
    container.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/entered\nexec "$@"\n')
    container.chmod(0o755)
    setup = f"setup=[export PATH={Path(sys.executable).parent}:$PATH]"
    settings = [f"container={container}", setup, f"environment.XDG_CACHE_HOME={tmp_path}"]
    paths = RunPaths(tmp_path / "runs" / "l")
    auto = ("phases.0.epochs=1", "phases.0.batch_per_worker=auto")
    job_id = submit("--run-dir", "runs/l", *(f"--set={setting}" for setting in settings), *auto)
    slurm.await_job(job_id, "COMPLETED")
    assert (tmp_path / "entered").read_text().startswith("python -m launcher.slurm.agent ")
    assert isinstance(load_job(str(paths.job)).phases[0].batch_per_worker, int)
    assert paths.plan.is_file()


@pytest.fixture
def sbatch(slurm: Cluster, resolute: Resolute, tmp_path: Path) -> Callable[..., str]:
    """`sbatch slurm/resolute.sbatch ARGUMENTS`, with the environment's python; the job's id."""
    python = Path(sys.executable).parent
    environment = {**slurm.environment, "PATH": f"{python}:{slurm.environment['PATH']}"}
    options = (f"--output={tmp_path / 'printed.txt'}", f"--chdir={tmp_path}")

    def call(*arguments: str) -> str:
        return slurm.run("sbatch", "--parsable", *options, SCRIPT, *arguments, env=environment)

    return call


def test_the_plain_script_runs_a_job_too(slurm: Cluster, sbatch: Callable[..., str], tmp_path: Path) -> None:
    job_id = sbatch("runs/f", "toy.yaml", "phases.0.epochs=1")
    slurm.await_job(job_id, "COMPLETED")
    assert (tmp_path / "runs" / "f" / "model.safetensors").is_file()


def test_a_requeued_plain_script_goes_on_with_the_runs_own_job_and_answers_to_the_other_commands(
    slurm: Cluster, resolute: Resolute, sbatch: Callable[..., str], tmp_path: Path
) -> None:
    job_id = sbatch("runs/h", "toy.yaml", *LONG)

    def events(name: str) -> list[LoggedEvent]:
        return [event for event in read(RunPaths(tmp_path / "runs" / "h").events) if event["event"] == name]

    slurm.wait(lambda: events("epoch_trained"), bool, "an epoch")
    (tmp_path / "toy.yaml").write_text("edited, and no job any more")
    slurm.run("scontrol", "requeue", job_id)

    def second() -> list[LoggedEvent]:
        slurm.hurry(job_id)
        return events("attempt_started")[1:]

    (begun,) = slurm.wait(second, bool, "the second attempt")
    assert begun["checkpoint"] is not None
    (stands,) = standings(resolute, job_id)
    assert (stands["state"], stands["restarts"], Path(stands["run"]).name) == ("RUNNING", 1, "h")
    assert resolute("cancel", "runs/h").stdout == f"cancelled Slurm job {job_id}\n"
    slurm.await_job(job_id, "CANCELLED")
    assert "queued again" not in resolute("logs", "-f", "runs/h").stdout.splitlines()[-1]
    assert "go on with: sbatch [OPTIONS] slurm/resolute.sbatch runs/h\n" in resolute("status", "h").stdout
    assert "was not submitted by `resolute submit`" in resolute("resume", "runs/h", code=2).stderr


def test_where_nothing_was_submitted_a_sentence_says_so(resolute: Resolute) -> None:
    for verb in ("status", "logs", "cancel"):
        assert "4711: nothing was submitted" in resolute(verb, 4711, code=2).stderr


SITE_KEYS = {"cpus_per_node": 2, "workers_per_node": 1, "time_limit_minutes": 10}


def state_in_squeue(slurm: Cluster, job_id: str) -> str:
    return slurm.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%T")

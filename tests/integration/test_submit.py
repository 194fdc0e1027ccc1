"""`resolute submit` and `resume` up to sbatch, whose place a stand-in takes: what is refused, kept and left."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from launcher.cli import app as cli
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.slurm.records import SlurmPaths, read
from tests.integration.toy import write_job

GOLDEN = Path(__file__).with_name("golden") / "chain.sbatch"
FIRST_JOB = 4711
SITE = {"cpus_per_node": 2, "workers_per_node": 1, "time_limit_minutes": 10, "signal_lead_s": 30}
AUTO = ("phases.0.batch_per_worker=auto", "phases.0.global_batch=null", "phases.2.batch_per_worker=auto")
SUBMIT = ("submit", "toy.yaml", "--profile", "site.yaml")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`resolute ARGUMENTS` in a folder with the job toy.yaml and the profile site.yaml: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    write_job(tmp_path, drawn)
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["resolute", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


class Slurm:
    """Its commands, as stand-ins on the PATH: sbatch takes so many jobs, squeue knows of those that it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        self.takes(9)
        self.knows()
        self._command("sacct", "exit 1")

    def takes(self, jobs: int) -> None:
        count = self._folder / "count"
        self._command(
            "sbatch",
            f'echo x >> {count}; n=$(wc -l < {count}); [ "$n" -le {jobs} ] || '
            "{ echo 'sbatch: error: Batch job submission failed: Job violates policy' >&2; exit 1; }; "
            f"echo Submitted batch job $(({FIRST_JOB} - 1 + n))",
        )

    def knows(self, **states: str) -> None:
        rows = "".join(f"{job.removeprefix('j')}|{state}|None|n1|9:00\\n" for job, state in states.items())
        self._command("squeue", f"printf '{rows}'")

    def does_not_answer(self) -> None:
        self._command("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")

    def _command(self, name: str, line: str) -> None:
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    return Slurm(tmp_path / "bin", monkeypatch)


def jobs_of(root: Path) -> list[str]:
    return [line["job_id"] for line in read(SlurmPaths(root).submissions)]


def test_no_second_job_is_submitted_while_slurm_cannot_say_whether_the_first_one_runs(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    assert call(*SUBMIT, "--run-dir", "runs/a")[0] == 0
    slurm.does_not_answer()
    for again in ((*SUBMIT, "--run-dir", "runs/a"), ("resume", "runs/a")):
        code, _, told = call(*again)
        assert code == 2
        assert "runs/a has had Slurm job 4711" in told
        assert "Unable to contact slurm controller" in told
        assert "try again when Slurm answers" in told
    slurm.knows(j4711="RUNNING")
    assert "runs/a belongs to Slurm job 4711 (RUNNING)" in call("resume", "runs/a")[2]
    assert jobs_of(tmp_path / "runs" / "a") == ["4711"]
    slurm.knows(j4711="FAILED")
    assert call("resume", "runs/a")[0] == 0
    assert jobs_of(tmp_path / "runs" / "a") == ["4711", "4712"]


@pytest.mark.parametrize("shape", [(), ("--sweep", "seed=1,2")], ids=["run", "sweep"])
def test_a_refused_submission_leaves_no_run_that_resume_would_train(
    shape: tuple[str, ...], slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    slurm.takes(0)
    code, _, told = call(*SUBMIT, "--run-dir", "runs/a", *shape)
    assert (code, "sbatch refused the job: Batch job submission failed: Job violates policy" in told) == (2, True)
    assert list((tmp_path / "runs").iterdir()) == []


def test_where_there_is_no_slurm_nothing_is_written(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    code, _, told = call(*SUBMIT)
    assert (code, "sbatch is not on this machine's PATH" in told) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_a_refusal_harms_no_run_that_was_there(slurm: Slurm, call: Call, tmp_path: Path) -> None:
    assert call(*SUBMIT, "--run-dir", "runs/a")[0] == 0
    slurm.takes(1)
    assert call("resume", "runs/a")[0] == 2
    assert load_job(str(RunPaths(tmp_path / "runs" / "a").job)).name == "toy"
    assert jobs_of(tmp_path / "runs" / "a") == ["4711"]


def test_a_chain_that_is_refused_midway_tells_which_jobs_will_run(slurm: Slurm, call: Call, tmp_path: Path) -> None:
    slurm.takes(2)
    code, _, told = call(*SUBMIT, "--run-dir", "runs/a", "--chain", 4)
    assert code == 2
    assert "Slurm has taken 2 of the 4 jobs, 4711, 4712, which will run; the next one it refused: " in told
    assert "`resolute resume runs/a`, or take them back by `resolute cancel runs/a`" in told
    assert jobs_of(tmp_path / "runs" / "a") == ["4711", "4712"]


@pytest.mark.parametrize("name", ["50%j", "a\\b"])
def test_a_directory_that_slurm_would_take_for_a_pattern_is_refused(
    name: str, slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    code, _, told = call(*SUBMIT, "--run-dir", f"runs/{name}")
    assert (code, "as patterns; take a --run-dir or run_root without them" in told) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_scripts_of_a_chain_in_a_container_are_those_that_were_looked_at(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    keys = {
        **SITE,
        "container": "apptainer exec --bind /run/munge resolute.sif",
        "python": "/opt/resolute/bin/python",
        "network_interface": "ib0",
        "modules": ["apptainer"],
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(keys))
    asked = (*SUBMIT, "--run-dir", "runs/a", "--set", "nodes=2", "--chain", 2)
    _, dry, told = call(*asked, "--dry-run")
    assert "1 more like it would follow, each with `--dependency=afterany:ID`" in told
    assert not (tmp_path / "runs").exists()
    assert call(*asked)[0] == 0
    first, second = (
        (SlurmPaths(tmp_path / "runs" / "a").folder / f"{job}_submission.sh").read_text() for job in ("4711", "4712")
    )
    assert dry == first + "\n"
    made = f"{first}\n{second}".replace(str(tmp_path), "/shared")
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
        pytest.fail(f"{GOLDEN} is new: look at it")
    assert made == GOLDEN.read_text()


def test_a_container_brings_its_own_python(call: Call, tmp_path: Path) -> None:
    command = "apptainer exec resolute.sif"
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**SITE, "container": command}))
    script = call(*SUBMIT, "--dry-run")[1]
    assert f" {command} python -m launcher.slurm.agent " in script
    assert sys.executable not in script


def test_what_is_named_is_found_from_within_any_slurm_job(
    slurm: Slurm, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*SUBMIT, "--run-dir", "elsewhere/first")[0] == 0
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    (tmp_path / "toy").mkdir()  # Of the same name as the job, and no run.
    for target in ("elsewhere/first", "toy", "4711"):
        code, out, _ = call("resume", target, "--run-root", "elsewhere")
        assert (code, "submitted as Slurm job" in out) == (0, True)
    assert jobs_of(tmp_path / "elsewhere" / "first") == ["4711", "4712", "4713", "4714"]


def test_a_directory_that_is_no_run_and_no_name_is_told_to_be_none(slurm: Slurm, call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty is no run directory (job.yaml is missing)" in call("resume", "empty")[2]
    assert "absent: nothing was submitted under this directory, name or job id" in call("resume", "absent")[2]


def test_workers_of_a_resumed_run_are_submitted_where_its_profile_leaves_them_open(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "runs" / "a")
    assert call(*SUBMIT, "--run-dir", "runs/a")[0] == 0
    assert call("resume", "runs/a", "--workers", 2)[0] == 0
    assert (load_job(str(paths.job)).run.workers, load_job(str(paths.job)).run.mode) == (2, "ray")
    assert "#SBATCH --nodes=2\n" in (SlurmPaths(paths.root).folder / "4712_submission.sh").read_text()
    code, _, told = call("resume", "runs/a", "--mode", "single")
    assert (code, "has 2 workers in mode ray, whatever --workers and --mode say" in told) == (2, True)


def test_workers_that_a_profile_has_fixed_are_refused_with_what_to_do(slurm: Slurm, call: Call, tmp_path: Path) -> None:
    assert call(*SUBMIT, "--run-dir", "runs/a", "--set", "nodes=1")[0] == 0
    code, _, told = call("resume", "runs/a", "--workers", 2)
    assert (code, "the run has 1 workers in mode single, whatever --workers" in told) == (2, True)
    assert "resolute submit runs/a/job.yaml --profile SITE --set nodes=N --run-dir runs/a" in told
    assert jobs_of(tmp_path / "runs" / "a") == ["4711"]


def batches(paths: RunPaths) -> list[Any]:
    return [phase.batch_per_worker for phase in load_job(str(paths.job)).phases]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_batch_that_is_left_open_is_found_in_the_job_and_kept_from_then_on(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "runs" / "a")
    told = "batch_per_worker: auto is found at the job's start, on its own machines (phases 0, 2)"
    assert told in call(*SUBMIT, *AUTO, "--dry-run")[2]
    assert told in call(*SUBMIT, *AUTO, "--run-dir", "runs/a")[2]
    assert (batches(paths), paths.plan.exists()) == (["auto", None, "auto"], False)
    assert call("status", "runs/a")[0] == 0
    assert told in call("resume", "runs/a")[2]
    assert batches(paths) == ["auto", None, "auto"]

    code, out, _ = call("resume", "runs/a", "--here", "--try-again")  # What the agent starts.
    assert (code, "looking for the batches" in out) == (0, True)
    assert paths.model.is_file()
    found = batches(paths)
    assert isinstance(found[0], int)
    assert isinstance(found[2], int)

    plan = paths.plan.read_text()
    for again in (("resume", "runs/a"), (*SUBMIT, *AUTO, "--run-dir", "runs/a")):
        code, _, said = call(*again)
        assert (code, told in said, batches(paths)) == (0, False, found)
    assert paths.plan.read_text() == plan
    code, _, refused = call("resume", "runs/a", "phases.1.batch_per_worker=auto")
    assert (code, "has trained with numbers where batch_per_worker is auto now" in refused) == (2, True)


def test_what_is_wrong_besides_an_open_batch_is_told_before_anything_is_submitted(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    code, _, told = call(*SUBMIT, *AUTO, "phases.1.global_batch=9999")
    assert (code, "phases[1]: a global batch of 9999 is more than the 250 training samples" in told) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_a_plan_of_an_earlier_submission_goes_when_batches_are_left_open(
    slurm: Slurm, call: Call, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "runs" / "a")
    assert call(*SUBMIT, "--run-dir", "runs/a")[0] == 0
    assert paths.plan.is_file()
    assert call(*SUBMIT, *AUTO, "--run-dir", "runs/a")[0] == 0
    assert not paths.plan.exists()

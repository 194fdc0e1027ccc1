"""Where data is staged: variables of the node, and what the plan says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.cli.plan import plan_staging
from launcher.config import Data
from launcher.job_file import load_job
from launcher.mistakes import JobError
from launcher.slurm.allocation import fit
from launcher.slurm.profile import Profile
from launcher.staging import StageError, stage_directory
from tests.unit.sample_jobs import make_job

NODE = {"SLURM_TMPDIR": "/scratch/4711", "USER": "ada", "EMPTY": "", "RELATIVE": "here"}


@pytest.mark.parametrize(
    ("stage", "directory"),
    [
        ("/scratch", "/scratch"),
        ("$SLURM_TMPDIR", "/scratch/4711"),
        ("/scratch/${USER}/data", "/scratch/ada/data"),
        ("$SLURM_TMPDIR/$USER", "/scratch/4711/ada"),
        ("/a$", "/a$"),
    ],
)
def test_variables_are_those_of_the_node(stage: str, directory: str) -> None:
    assert stage_directory(stage, NODE, host="n1") == Path(directory)


@pytest.mark.parametrize("name", ["SCRATCH", "EMPTY"])
def test_a_variable_that_is_not_set_is_named_with_its_node(name: str) -> None:
    with pytest.raises(StageError) as caught:
        stage_directory(f"${{{name}}}/data", NODE, host="n1")
    assert str(caught.value).startswith(f"data.stage: ${{{name}}}/data: ${name} is not set on n1, where the worker")


def test_a_variable_may_not_make_the_directory_relative() -> None:
    with pytest.raises(StageError, match=r"comes to here on n1; an absolute path is needed"):
        stage_directory("$RELATIVE", NODE, host="n1")


def test_a_relative_stage_is_an_error_of_the_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        load_job("demo", ["data.stage=scratch"])
    (problem,) = caught.value.problems
    assert (problem.path, problem.rule) == ("data.stage", "must be an absolute path")


def test_a_sites_scratch_is_the_stage_of_jobs_that_say_nothing() -> None:
    site = Profile(cpus_per_node=2, workers_per_node=1, time_limit_minutes=5, scratch="$SLURM_TMPDIR")
    assert fit(make_job(), site).data.stage == "$SLURM_TMPDIR"
    assert fit(make_job(data={"stage": "/nvme"}), site).data.stage == "/nvme"
    assert fit(make_job(data={"stage": None}), site).data.stage is None


def test_the_plan_tells_where_and_how_much(tmp_path: Path) -> None:
    for name, num_bytes in (("train", 3_000_000), ("val", 500_000)):
        (tmp_path / name).write_bytes(bytes(num_bytes))
    data = Data(train=str(tmp_path / "train"), val=str(tmp_path / "val"), stage="$SLURM_TMPDIR")
    assert str(plan_staging(data)) == "stages 3.5 MB to $SLURM_TMPDIR on each node"
    (tmp_path / "val").unlink()
    assert str(plan_staging(data)) == "stages its data to $SLURM_TMPDIR on each node"
    assert plan_staging(Data(train=str(tmp_path / "train"))) is None

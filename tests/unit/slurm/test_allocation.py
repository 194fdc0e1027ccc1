"""How many nodes a job gets, how many workers they make, and the options of sbatch that say so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher.config import JobConfig, Workers
from launcher.slurm.allocation import AllocationError, allocate, fit, sbatch_options, setup_lines
from launcher.slurm.profile import Profile
from tests.unit.sample_jobs import make_job

GPUS = {"gpus_per_node": 4, "cpus_per_node": 48, "time_limit_minutes": 60}


def profile(**keys: object) -> Profile:
    return Profile.model_validate({**GPUS, **keys})


def job(workers: object, **run: object) -> JobConfig:
    return make_job(run={"workers": workers, **run})


@pytest.mark.parametrize(
    ("workers", "nodes", "workers_per_node"),
    [(1, "1", 1), (3, "1", 3), (4, "1", 4), (8, "2", 4), (64 * 4, "64", 4), ({"min": 2, "max": 12}, "1-3", 4)],
)
def test_a_jobs_workers_tell_the_nodes(workers: object, nodes: str, workers_per_node: int) -> None:
    asked = allocate(job(workers), profile())
    assert (asked.nodes, asked.workers_per_node) == (nodes, workers_per_node)


def test_less_than_a_node_takes_its_share_of_it() -> None:
    asked = allocate(job(1), profile())
    assert (asked.gpus_per_node, asked.cpus_per_node) == (1, 12)


def test_an_exclusive_node_is_taken_with_all_its_cpus() -> None:
    asked = allocate(job(1), profile(exclusive=True))
    assert (asked.gpus_per_node, asked.cpus_per_node) == (1, 48)


def test_workers_that_leave_a_node_half_used_are_refused_with_numbers_that_fit() -> None:
    with pytest.raises(AllocationError, match=r"run.workers: 6 workers do not fill nodes of 4; use 4 or 8"):
        allocate(job(6), profile())


@pytest.mark.parametrize(
    ("nodes", "workers"), [(1, 4), (3, 12), ({"max": 3}, Workers(min=4, max=12)), ({"min": 2, "max": 2}, 8)]
)
def test_a_profiles_nodes_tell_the_workers(nodes: object, workers: object) -> None:
    fitted = fit(job(1), profile(nodes=nodes))
    assert fitted.run.workers == workers
    assert fitted.run.mode == "ray"


def test_a_job_that_bounds_its_workers_keeps_its_least() -> None:
    assert fit(job({"min": 2, "max": 8}), profile()).run.workers == Workers(min=2, max=8)


def test_a_single_worker_stays_in_its_mode() -> None:
    assert fit(job(1), profile()).run.mode == "single"


def test_the_sites_grace_reaches_the_job() -> None:
    assert fit(job(4), profile(grace_s=30)).run.grace_s == 30
    assert fit(job(4, grace_s=7), profile()).run.grace_s == 7


def test_one_task_on_each_node_owns_all_that_is_granted_there() -> None:
    asked = allocate(job(8), profile())
    options = sbatch_options(profile(), asked, name="x", run_directory="/runs/x")
    chosen = {key: options[key] for key in ("nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "time")}
    assert chosen == {"nodes": "2", "ntasks_per_node": 1, "cpus_per_task": 48, "gpus_per_node": 4, "time": 60}


def test_a_range_of_nodes_leaves_the_tasks_to_srun() -> None:
    """Else Slurm 22.05 grants no more than the least."""
    site = profile(nodes={"min": 1, "max": 3})
    options = sbatch_options(site, allocate(job(1), site), name="x", run_directory="/runs/x")
    assert (options["nodes"], options["ntasks_per_node"]) == ("1-3", None)
    assert "--ntasks-per-node=1" in options["srun_args"]


@pytest.mark.parametrize(
    ("keys", "workers", "goes_on"),
    [
        ({"nodes": {"min": 1, "max": 3}}, 1, True),
        ({"nodes": {"min": 1, "max": 3}, "requeue": False}, 1, True),
        ({}, {"min": 4, "max": 12}, True),
        ({"nodes": 3}, 1, False),
        ({}, {"min": 9, "max": 12}, False),
    ],
)
def test_a_job_that_may_have_fewer_nodes_goes_on_when_it_loses_one(
    keys: dict[str, object], workers: object, goes_on: bool
) -> None:
    site = profile(**keys)
    options = sbatch_options(site, allocate(job(workers), site), name="x", run_directory="/x")
    assert options["additional_parameters"].get("no-kill", False) is goes_on
    assert ("--no-kill" in options["srun_args"]) is goes_on


def test_where_requeues_are_forbidden_slurm_is_told() -> None:
    options = sbatch_options(profile(requeue=False), allocate(job(4), profile()), name="x", run_directory="/x")
    assert options["additional_parameters"] == {"no-requeue": True, "signal": "USR2@120"}


def test_variables_come_last_and_may_refer_to_the_jobs_own() -> None:
    lines = setup_lines(
        profile(modules=["cuda"], setup=["source x"], environment={"A": '$HOME/"b"'}, network_interface="ib0")
    )
    assert lines[0].startswith("trap ")
    assert lines[1:] == [
        "module load cuda",
        "source x",
        "trap - ERR",
        'export GLOO_SOCKET_IFNAME="ib0"',
        'export NCCL_SOCKET_IFNAME="ib0"',
        'export A="$HOME/\\"b\\""',
    ]


@pytest.mark.parametrize("absent", ["source absent/bin/activate", "module load absent"])
def test_a_line_of_the_setup_that_fails_ends_the_script_and_is_told(absent: str, tmp_path: Path) -> None:
    modules = "module() { test $2 != absent; }"
    done = run_script(tmp_path, [*setup_lines(profile(setup=[modules, "module load present", absent])), "echo agent"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"resolute: the job ends, as this line of its setup failed: {absent}\n")


def test_what_fails_within_a_sourced_file_or_is_allowed_to_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "activate").write_text("false\ntrue\n")
    setup = ["source ./activate", "if false; then", "  true", "fi", "false || true"]
    done = run_script(tmp_path, [*setup_lines(profile(setup=setup)), "(exit 3)"])
    assert (done.returncode, done.stderr) == (3, "")  # The agent's own exit code, too, is handed on.


def run_script(folder: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "script").write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    return subprocess.run(["bash", "script"], cwd=folder, capture_output=True, text=True)

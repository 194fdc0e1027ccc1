"""Runs that read data from a node's own disk end as those that do not; what they say names the files themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ffcv_datasets.beton import Beton
from launcher.event_log import read_events
from launcher.paths import RunPaths
from tests.faults.commands import Commands
from tests.integration.toy import JOB, final_sums, resolute, write_job

KILLED = "from launcher import failpoints; failpoints.arm(failpoints.parse('worker.lease_trained:20'))"


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def unstaged(tmp_path_factory: pytest.TempPathFactory, drawn: Path, commands: Commands) -> RunPaths:
    folder = tmp_path_factory.mktemp("unstaged")
    paths = RunPaths(folder / "run")
    done = commands.resolute("run", write_job(folder, drawn), "--run-dir", paths.root)
    assert done.code == 0, done
    return paths


def staging_events(paths: RunPaths) -> list[dict[str, Any]]:
    return [dict(event) for event in read_events(paths.events) if event["event"].startswith("data_")]


def test_a_staged_run_ends_with_the_weights_of_one_that_is_not(
    drawn: Path, tmp_path: Path, commands: Commands, unstaged: RunPaths
) -> None:
    job, paths = write_job(tmp_path, drawn), RunPaths(tmp_path / "run")
    node = {"NODE_DISK": str(tmp_path / "disk")}
    stage = "data.stage=$NODE_DISK/stage"
    first = commands.resolute("run", job, stage, "--run-dir", paths.root, environment=node, before=KILLED)
    assert first.code == -9
    resumed = commands.resolute("resume", paths.root, environment=node)
    assert resumed.code == 0, resumed
    assert final_sums(paths) == final_sums(unstaged)
    told = [(event["event"], event["source"], event["reused"]) for event in staging_events(paths)]
    names = [str(drawn / f"{name}.beton") for name in ("train", "val")]
    assert told == [("data_staged", name, reused) for reused in (False, True) for name in names]
    assert all(event["copy"].startswith(f"{tmp_path}/disk/stage/") for event in staging_events(paths))
    assert f"{names[0]} is staged on " in first.out
    assert f"{names[0]} is still staged on " in resumed.out
    summary = json.loads(paths.summary.read_text())
    assert summary["staged_bytes"] == 2 * sum(Path(name).stat().st_size for name in names)
    assert summary["staging_s"] > 0
    assert "data copied to nodes' disks, or found there:" in resumed.out


def test_the_copies_are_what_is_read(drawn: Path, tmp_path: Path, commands: Commands, unstaged: RunPaths) -> None:
    """The files go as soon as they have been copied."""
    data = tmp_path / "data"
    data.mkdir()
    for path in drawn.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    job, paths = write_job(tmp_path, data), RunPaths(tmp_path / "run")
    remove = f"""
import shutil
from launcher import worker_process
build = worker_process._build_trainer
def without_sources(*arguments):
    shutil.rmtree({str(data)!r})
    return build(*arguments)
worker_process._build_trainer = without_sources
"""
    done = commands.resolute("run", job, f"data.stage={tmp_path}/disk", "--run-dir", paths.root, before=remove)
    assert done.code == 0, done
    assert not data.exists()
    assert final_sums(paths) == final_sums(unstaged)


@pytest.mark.parametrize(("before", "after"), [("null", "/disk"), ("/disk", "null")])
def test_a_run_may_begin_staged_and_go_on_unstaged_or_the_other_way_round(
    drawn: Path, tmp_path: Path, commands: Commands, unstaged: RunPaths, before: str, after: str
) -> None:
    job, paths = write_job(tmp_path, drawn), RunPaths(tmp_path / "run")
    stages = [f"data.stage={stage.replace('/disk', str(tmp_path / 'disk'))}" for stage in (before, after)]
    assert commands.resolute("run", job, stages[0], "--run-dir", paths.root, before=KILLED).code == -9
    resumed = commands.resolute("resume", paths.root, stages[1])
    assert resumed.code == 0, resumed
    assert final_sums(paths) == final_sums(unstaged)
    assert len(staging_events(paths)) == 2


def test_a_stage_that_cannot_be_written_costs_a_warning_alone(
    drawn: Path, tmp_path: Path, commands: Commands, unstaged: RunPaths
) -> None:
    (tmp_path / "file").touch()
    job, paths = write_job(tmp_path, drawn), RunPaths(tmp_path / "run")
    done = commands.resolute("run", job, f"data.stage={tmp_path}/file", "--run-dir", paths.root)
    assert done.code == 0, done
    assert final_sums(paths) == final_sums(unstaged)
    assert [event["event"] for event in staging_events(paths)] == ["data_not_staged"] * 2
    assert f"warning: {drawn / 'train.beton'} is not staged on " in done.out


def test_a_variable_that_is_not_set_ends_the_run_with_a_sentence(
    drawn: Path, tmp_path: Path, commands: Commands
) -> None:
    job = write_job(tmp_path, drawn)
    failed = commands.resolute("run", job, "data.stage=$NO_SUCH_DISK", "--run-dir", tmp_path / "run")
    assert failed.code == 2, failed
    assert "resolute: data.stage: $NO_SUCH_DISK: $NO_SUCH_DISK is not set on " in failed.err
    assert "Traceback" not in failed.err


def test_damage_is_told_of_the_file_itself_and_of_the_copy_that_was_read(
    drawn: Path, tmp_path: Path, commands: Commands
) -> None:
    path = tmp_path / "train.beton"
    content = bytearray((drawn / "train.beton").read_bytes())
    with Beton(drawn / "train.beton") as beton:
        images = beton.images()
        offset, size = int(images.offsets[17]), int(images.sizes[17])
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)  # Without a card, which would tell before.
    (tmp_path / "val.beton").write_bytes((drawn / "val.beton").read_bytes())
    job = write_job(tmp_path, tmp_path)
    failed = commands.resolute("run", job, f"data.stage={tmp_path}/disk", "--run-dir", tmp_path / "run")
    assert failed.code == 2, failed
    last = failed.err.strip().splitlines()[-1]
    assert last.startswith(f"resolute: {path}: sample 17 cannot be decoded: ")
    assert f", as read from its copy {tmp_path}/disk/resolute-{os.geteuid()}/" in last


def test_two_ray_workers_share_one_copy(drawn: Path, tmp_path: Path) -> None:
    run = {**JOB["run"], "mode": "ray", "workers": 2}
    job, paths = write_job(tmp_path, drawn, run=run, phases=JOB["phases"][:1]), RunPaths(tmp_path / "run")
    done = resolute("run", job, f"data.stage={tmp_path}/disk", "--run-dir", paths.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(event["event"], event["reused"]) for event in staging_events(paths)] == [("data_staged", False)] * 2


def test_the_plan_says_where_data_is_staged(drawn: Path, tmp_path: Path, commands: Commands) -> None:
    job = write_job(tmp_path, drawn)
    num_bytes = sum((drawn / f"{name}.beton").stat().st_size for name in ("train", "val"))
    shown = commands.resolute("plan", job, "data.stage=$SLURM_TMPDIR")
    assert f"stages {num_bytes / 1e6:.1f} MB to $SLURM_TMPDIR on each node" in shown.out
    plain = json.loads(commands.resolute("plan", job, "data.stage=$SLURM_TMPDIR", "--format", "json").out)
    assert plain["staging"] == {"directory": "$SLURM_TMPDIR", "num_bytes": num_bytes}
    assert json.loads(commands.resolute("plan", job, "--format", "json").out)["staging"] is None

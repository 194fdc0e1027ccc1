"""What is decided before a worker starts: where to begin, and whether the run may go on as the job now says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from launcher import checkpoint
from launcher.coordinator import Done, Evaluate, Transition
from launcher.job_file import load_job
from launcher.mistakes import JobError
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.planning import PlanError
from launcher.run_setup import ChangedJobError, RunSetup, check_job, next_attempt, prepare_run
from launcher.saving import Standing
from tests.integration.toy import write_job

# The drawn data set has 250 samples: 7 steps of 32 in epochs 0 and 1, 15 steps of 16 in the others.


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    root = tmp_path / "run"
    root.mkdir()
    return RunPaths(root)


@pytest.fixture
def job_path(tmp_path: Path, drawn: Path) -> Path:
    return write_job(tmp_path, drawn)


def prepare(job_path: Path, paths: RunPaths, *overrides: str, accept_changes: bool = False) -> RunSetup:
    job, plan, data = check_job(load_job(str(job_path), overrides), source=str(job_path))
    return prepare_run(job, plan, data, paths=paths, accept_changes=accept_changes)


def save(paths: RunPaths, position: Position, *, evaluated_epoch: int | None = None) -> None:
    standing = Standing(evaluated_epoch=position.epoch - 1 if evaluated_epoch is None else evaluated_epoch)
    facts = {"standing": dataclasses.asdict(standing)}
    checkpoint.save(paths.checkpoints, position, {"model": {"weight": torch.zeros(2)}}, facts)


def refusal(job_path: Path, paths: RunPaths, *overrides: str, accept_changes: bool = False) -> str:
    before = paths.plan.read_bytes(), paths.job.read_bytes()
    with pytest.raises(ChangedJobError) as caught:
        prepare(job_path, paths, *overrides, accept_changes=accept_changes)
    assert (paths.plan.read_bytes(), paths.job.read_bytes()) == before
    return str(caught.value)


def test_a_fresh_run_begins_at_the_start_and_keeps_its_job_and_plan(job_path: Path, paths: RunPaths) -> None:
    setup = prepare(job_path, paths)
    assert (setup.start, setup.checkpoint) == (Position(0), None)
    assert load_job(str(paths.job)) == setup.job
    assert json.loads(paths.plan.read_text())["fingerprint"] == setup.plan.fingerprint


def test_the_kept_job_finds_its_data_from_any_directory(
    job_path: Path, paths: RunPaths, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn)
    setup = prepare(job_path, paths, "data.train=train.beton", "data.val=val.beton")
    assert (setup.job.data.train, setup.job.data.val) == (str(drawn / "train.beton"), str(drawn / "val.beton"))


@pytest.mark.parametrize("position", [Position(1), Position(2), Position(2, 48), Position(5)])
def test_a_run_goes_on_at_its_newest_checkpoint(position: Position, job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    for saved in (Position(0, 32), position):
        save(paths, saved)
    setup = prepare(job_path, paths)
    assert setup.start == position
    assert setup.checkpoint == paths.checkpoints / f"e{position.epoch:05}-s{position.samples_done:09}"
    rows = setup.plan.rows
    first = setup.coordinator().next(rank=0, turn=0, position=position)
    assert (
        first
        == {
            Position(1): Transition(rows[1], previous=None),
            Position(2): Transition(rows[2], previous=rows[1]),
            Position(2, 48): Transition(rows[2], previous=None),
            Position(5): Done(),
        }[position]
    )


def test_an_evaluation_that_a_stop_cut_off_comes_first(job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    save(paths, Position(1), evaluated_epoch=-1)
    first = prepare(job_path, paths).coordinator().next(rank=0, turn=0, position=Position(1))
    assert first == Evaluate(0, 12, "epoch_end")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("phases.1.resolution=20", "from epoch 2: "),
        ("seed=4", "seed: 3 -> 4"),
        ("run={mode: ray, workers: 2}", "world_size: 1 -> 2"),
        ("data.loader=ffcv", "data.loader: resolute -> ffcv"),
        ("model.options.width=8", "model.options: {'blocks_per_stage': 1, 'width': 4} -> "),
        ("optimizer.momentum=0.8", "optimizer.momentum: 0.9 -> 0.8"),
        ("loss.label_smoothing=0.1", "loss.label_smoothing: 0.0 -> 0.1"),
        ("phases.1.warmup_epochs=2", "from epoch 2: lr_end 0.05 -> "),
        # Both warm up within epoch 2, which no row shows.
        ("phases.1.warmup_epochs=0.5", "learning rate within epochs (compare learning_rate and phases in job.yaml)"),
        ("phases.2.epochs=2", "epochs: 5 -> 6"),
    ],
)
def test_another_job_is_refused_with_the_difference_unless_accepted(
    override: str, told: str, job_path: Path, paths: RunPaths
) -> None:
    prepare(job_path, paths)
    save(paths, Position(1))
    message = refusal(job_path, paths, override)
    assert told in message
    assert "--accept-changes" in message
    setup = prepare(job_path, paths, override, accept_changes=True)
    assert setup.start == Position(1)
    assert json.loads(paths.plan.read_text())["fingerprint"] == setup.plan.fingerprint


@pytest.mark.parametrize(
    "override",
    [
        "run.lease_s=9",
        "evaluation.every_epochs=3",
        "phases.0.name=coarse",
        "checkpoint.keep_last=5",
        "data.skip_corrupt=true",
    ],
)
def test_what_decides_no_weights_may_change(override: str, job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    save(paths, Position(1))
    assert prepare(job_path, paths, override).start == Position(1)


@pytest.mark.parametrize(
    ("batch", "start", "last_sample"),
    [
        pytest.param(16, Position(1, 192), 240, id="a step of the new plan starts there"),
        pytest.param(28, Position(1, 192), 248, id="its batches are counted from there"),
        pytest.param(80, Position(2), 192, id="what is left fills no batch"),
    ],
)
def test_a_changed_batch_takes_over_in_mid_epoch(
    batch: int, start: Position, last_sample: int, job_path: Path, paths: RunPaths
) -> None:
    prepare(job_path, paths)
    save(paths, Position(1, 192))
    setup = prepare(job_path, paths, f"phases.0.global_batch={batch}", accept_changes=True)
    assert (setup.start, setup.plan.rows[1].num_samples) == (start, last_sample)


ELASTIC = "run={mode: ray, workers: {min: 1, max: 4}}"


def test_another_number_of_workers_is_no_change_to_a_job_that_leaves_it_open(job_path: Path, paths: RunPaths) -> None:
    setup = prepare(job_path, paths, ELASTIC)
    assert setup.plan.world_size == 4
    save(paths, Position(1, 64))
    fewer = next_attempt(setup, world_size=2)
    assert (fewer.start, fewer.plan.world_size, fewer.plan.rows[1].batch_per_worker) == (Position(1, 64), 2, 16)
    again = prepare(job_path, paths, ELASTIC)  # The plan that was kept is that of 2 workers.
    assert (again.start, again.plan.world_size) == (Position(1, 64), 4)
    assert "seed: 3 -> 4" in refusal(job_path, paths, ELASTIC, "seed=4")


@pytest.mark.parametrize("garbage", ["", "[]", "{}", '{"world_size": 1}', "[" * 100_000, "\udcff"])
@pytest.mark.parametrize("name", ["plan", "job"])
def test_a_damaged_plan_or_job_is_refused_and_can_be_passed_over(
    garbage: str, name: str, job_path: Path, paths: RunPaths
) -> None:
    prepare(job_path, paths)
    save(paths, Position(1))
    file: Path = getattr(paths, name)
    file.write_text(garbage, errors="surrogateescape")
    assert "--accept-changes" in refusal(job_path, paths)
    assert prepare(job_path, paths, accept_changes=True).start == Position(1)


def test_a_shorter_plan_than_what_was_trained_is_refused(job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    save(paths, Position(5))
    shorter = "phases=[{epochs: 2, resolution: 12, global_batch: 32}]"
    message = refusal(job_path, paths, shorter, accept_changes=True)
    assert "has trained 5 epochs, the plan has only 2" in message


def test_a_job_and_a_plan_are_checked_before_a_directory_is_touched(job_path: Path) -> None:
    with pytest.raises(JobError, match=r"data\.num_samples: 9: .*train\.beton holds 250 samples; write 250"):
        check_job(load_job(str(job_path), ["data.num_samples=9"]), source="job")
    with pytest.raises(PlanError, match="does not divide by 3 workers"):
        check_job(load_job(str(job_path), ["run={mode: ray, workers: 3}"]), source="job")
    with pytest.raises(PlanError, match="use --mode ray"):
        check_job(load_job(str(job_path), ["run.workers=2"]), source="job")

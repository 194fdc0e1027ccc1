"""What is decided before a worker starts: where to begin, and whether the run may go on as the job now says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from launcher import checkpoint
from launcher.coordinator import Done, Transition
from launcher.job_file import JobError, load_job
from launcher.paths import RunPaths
from launcher.plan import PlanError, Position
from launcher.run_setup import ChangedJobError, RunSetup, check_job, prepare_run
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


def save(paths: RunPaths, position: Position) -> None:
    checkpoint.save(paths.checkpoints, position, {"model": {"weight": torch.zeros(2)}}, {})


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


@pytest.mark.parametrize("position", [Position(1), Position(2, 48), Position(5)])
def test_a_run_goes_on_at_its_newest_checkpoint(position: Position, job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    for saved in (Position(0, 32), position):
        save(paths, saved)
    setup = prepare(job_path, paths)
    assert setup.start == position
    assert setup.checkpoint == paths.checkpoints / f"e{position.epoch:05}-s{position.samples_done:09}"
    first = setup.coordinator().next(rank=0, turn=0, position=position)
    assert first == (Done() if position == Position(5) else Transition(setup.plan.rows[position.epoch], None))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("phases.1.resolution=20", "from epoch 2: "),
        ("seed=4", "seed: 3 -> 4"),
        ("run.workers=2", "world_size: 1 -> 2"),
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


def test_a_changed_plan_may_go_on_where_one_of_its_steps_starts(job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    save(paths, Position(1, 192))
    setup = prepare(job_path, paths, "phases.0.global_batch=16", accept_changes=True)
    assert setup.start == Position(1, 192)


# With 96 the epoch would end at sample 192, after two steps and with a tail of 58.
@pytest.mark.parametrize("batch", [80, 128, 96])
def test_a_changed_plan_without_such_a_step_is_refused(batch: int, job_path: Path, paths: RunPaths) -> None:
    prepare(job_path, paths)
    save(paths, Position(1, 192))
    message = refusal(job_path, paths, f"phases.0.global_batch={batch}", accept_changes=True)
    assert f"where no step of the new plan starts (global batch {batch})" in message


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
        check_job(load_job(str(job_path), ["run.workers=3"]), source="job")

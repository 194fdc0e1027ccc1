"""The job that fits a model to a size is the one that was published."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.fixres import fixres_job
from launcher.job_file import dump_job, load_job, parse_job
from launcher.plan import BEGINNING, Position
from launcher.planning import build_plan
from tests.unit.sample_jobs import make_job

JOB = make_job(
    {"resolution": 128, "batch_per_worker": 256},
    {"resolution": 224, "batch_per_worker": 64},
    ema={"decay": 0.9},
    loss={"label_smoothing": 0.1},
    evaluation={"crop_ratio": 0.875, "resolution": 256},
    optimizer={"name": "adamw"},
    run={"mode": "ray", "workers": 8},
)


def test_it_is_the_published_recipe_for_resnet50() -> None:
    """Touvron et al. 2019: 384 px, 8 x 64, 56 epochs, LR 8 * 1e-3, x 0.1 every 30, SGD 0.9, decay 1e-4, one crop."""
    plan = build_plan(fixres_job(JOB, size=384, weights=Path("/w")), num_samples=1281167, world_size=8)
    assert len(plan.rows) == 56
    assert {(row.resolution, row.global_batch, row.centre_crop, row.trainable) for row in plan.rows} == {
        (384, 512, 0.875, "classifier_and_last_norm")
    }
    assert plan.learning_rate(BEGINNING) == pytest.approx(8e-3)
    assert plan.learning_rate(Position(29)) == pytest.approx(8e-3)
    assert plan.learning_rate(Position(30)) == plan.learning_rate(Position(55)) == pytest.approx(8e-4)


def test_it_trains_as_the_recipe_that_is_shipped() -> None:
    fitted, recipe = fixres_job(JOB, size=384, weights=Path("/w")), load_job("imagenet-rn50-fixres")
    assert fitted.learning_rate == recipe.learning_rate
    assert (fitted.optimizer, fitted.num_epochs) == (recipe.optimizer, recipe.num_epochs)


def test_it_starts_from_the_runs_weights_and_judges_at_the_size() -> None:
    job = fixres_job(JOB, size=288, weights=Path("/runs/first/model.safetensors"))
    assert (job.name, job.model.weights) == ("tiny-fixres-288", "/runs/first/model.safetensors")
    assert (job.evaluation.resolution, job.evaluation.crop_ratio) == (288, 0.875)
    assert (job.optimizer.name, job.optimizer.weight_decay, job.loss.label_smoothing) == ("sgd", 1e-4, 0)
    assert job.ema is None
    assert job.run == JOB.run


def test_fewer_epochs_drop_the_rate_at_the_same_share_of_them() -> None:
    plan = build_plan(fixres_job(JOB, size=288, weights=Path("/w"), epochs=28), num_samples=5120, world_size=8)
    assert plan.learning_rate(Position(14)) == pytest.approx(8e-3)
    assert plan.learning_rate(Position(15)) == pytest.approx(8e-4)


def test_it_reads_back_from_its_file() -> None:
    job = fixres_job(JOB, size=288, weights=Path("/w"), trainable=2)
    assert parse_job(dump_job(job)) == job

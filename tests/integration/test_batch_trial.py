"""Batches found by real steps: by errors of torch's own kind, and by a measured budget on a CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from launcher.batch_cache import BatchCache
from launcher.batch_search import Finding, Request, find_batches
from launcher.batch_size import BatchSizeError
from launcher.batch_trial import Trial, find, search
from launcher.cli.app import app
from launcher.config import JobConfig
from launcher.job_file import load_job
from launcher.models import build_model
from launcher.paths import RunPaths
from launcher.planning import PlanError, build_plan
from tests.integration.toy import JOB, write_job
from tests.unit.sample_jobs import make_job

AUTO: dict[str, Any] = {"batch_per_worker": "auto"}
MODEL = {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1}}


class Memory(nn.Module):
    """A model on a device that holds so many pixels, and fails as torch does."""

    def __init__(self, num_pixels: int):
        super().__init__()
        self.num_pixels = num_pixels
        self.model = build_model(make_job(model=MODEL).model, num_classes=5, seed=0)
        self.tried: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        self.tried.append((width, batch))
        if batch * height * width > self.num_pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        logits: Tensor = self.model(images)
        return logits


def trial_of(job: JobConfig, memory: Memory) -> Trial:
    return Trial(job, num_classes=5, device=torch.device("cpu"), model=memory)


def job_of(*phases: dict[str, Any], **sections: Any) -> JobConfig:
    return make_job(*phases, **{"model": MODEL, **sections})


def test_at_each_size_the_largest_batch_that_trains_is_found_with_a_margin() -> None:
    memory = Memory(100 * 16 * 16)
    trial = trial_of(job_of({**AUTO, "resolution": 16}, {**AUTO, "resolution": 32}), memory)
    assert search(trial, 0, at_most=1000) == 80  # of 96 that train, a tenth is left free, in multiples of 8
    assert search(trial, 1, at_most=1000) == 16  # of 24
    assert (32, 24) in memory.tried
    assert (32, 32) in memory.tried


def test_steps_are_whole_ones_with_optimizer_and_average() -> None:
    trial = trial_of(job_of(AUTO, optimizer={"name": "adamw"}, ema={"decay": 0.9}), Memory(10**6))
    assert trial.trains(0, 8)
    trainer = trial.trainer
    assert trainer.average is not None
    assert int(trainer.average.n_averaged) == 1
    assert all(trainer.optimizer.state[parameter]["exp_avg"] is not None for parameter in trainer.model.parameters())


def test_where_gradients_accumulate_two_batches_are_tried() -> None:
    memory = Memory(10**6)
    assert trial_of(job_of({**AUTO, "global_batch": 64}), memory).trains(0, 8)
    assert memory.tried == [(16, 8), (16, 8)]


def test_after_a_lack_of_memory_steps_go_on() -> None:
    trial = trial_of(job_of(AUTO), Memory(16 * 16 * 16))
    assert [trial.trains(0, batch) for batch in (8, 64, 16)] == [True, False, True]


def test_any_other_error_ends_the_search() -> None:
    memory = Memory(10**6)
    memory.model = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="shapes"):
        trial_of(job_of(AUTO), memory).trains(0, 8)


def test_too_little_memory_for_anything_is_told() -> None:
    with pytest.raises(BatchSizeError, match=r"phases\[0\].batch_per_worker: not even 8 samples fit"):
        search(trial_of(job_of(AUTO), Memory(10)), 0, at_most=100)


def request_for(job: JobConfig, *, budget_bytes: int = 1 << 40, again: bool = False) -> Request:
    return Request(job, num_classes=5, num_samples=10_000, budget_bytes=budget_bytes, again=again)


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")


@needs_no_gpu
def test_on_a_cpu_batches_follow_the_area_and_are_known_the_next_time(tmp_path: Path) -> None:
    job, cache = job_of(*({**AUTO, "resolution": px} for px in (16, 24, 32))), BatchCache(tmp_path / "a" / "b.json")
    first = find(request_for(job), cache)
    assert [(f.resolution, f.batch, f.device, f.earlier) for f in first] == [
        (16, 256, "cpu", False),
        (24, 112, "cpu", False),
        (32, 64, "cpu", False),
    ]
    again = find(request_for(job), cache)
    assert [(f.batch, f.memory_bytes, f.earlier) for f in again] == [(f.batch, f.memory_bytes, True) for f in first]
    assert not find(request_for(job, again=True), cache)[0].earlier


@needs_no_gpu
@pytest.mark.parametrize(
    "change",
    [{"model": {**MODEL, "options": {"width": 8, "blocks_per_stage": 1}}}, {"run": {"precision": "bf16"}}],
    ids=["model", "precision"],
)
def test_another_model_or_precision_is_searched_anew(change: dict[str, Any], tmp_path: Path) -> None:
    cache = BatchCache(tmp_path / "cache.json")
    find(request_for(job_of(AUTO)), cache)
    assert not find(request_for(job_of(AUTO, **change)), cache)[0].earlier


@needs_no_gpu
def test_a_known_sample_is_reckoned_into_each_budget_anew_smaller_or_larger(tmp_path: Path) -> None:
    cache = BatchCache(tmp_path / "cache.json")
    job, now = job_of(AUTO), []
    key = request_for(job).key(0, device="cpu", memory_bytes=None, at_most=64)
    find(request_for(job), cache)
    known = cache.look_up(key, figures=("bytes_per_sample", "other_bytes"))
    assert known is not None
    for samples in (19, 1000, 3, 40):
        budget = known["other_bytes"] + samples * known["bytes_per_sample"]
        (found,) = find(request_for(job, budget_bytes=budget), cache)
        assert found.earlier
        assert found.memory_bytes == known["other_bytes"] + found.batch * known["bytes_per_sample"]
        now.append(found.batch)
    assert now == [16, 64, 3, 40]
    with pytest.raises(BatchSizeError, match="use fewer workers, a smaller model or size"):
        find(request_for(job, budget_bytes=1000), cache)


@needs_no_gpu
def test_what_a_former_version_kept_as_a_cpus_batch_is_measured_anew(tmp_path: Path) -> None:
    cache, request = BatchCache(tmp_path / "cache.json"), request_for(job_of(AUTO))
    cache.keep(request.key(0, device="cpu", memory_bytes=None, at_most=64), {"batch": 8, "memory_bytes": 1})
    (found,) = find(request, cache)
    assert (found.batch, found.earlier) == (64, False)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"{\\"a\\": 1}": {"batch": 0, "memory_bytes": 1}}'])
def test_a_cache_that_says_nothing_sensible_is_done_without(content: str, tmp_path: Path) -> None:
    cache, names = BatchCache(tmp_path / "cache.json"), ("batch", "memory_bytes")
    cache.path.write_text(content)
    assert cache.look_up({"a": 1}, figures=names) is None
    cache.keep({"a": 1}, {"batch": 8, "memory_bytes": 100})
    assert cache.look_up({"a": 1}, figures=names) == {"batch": 8, "memory_bytes": 100}


def test_a_search_leaves_its_process_and_is_kept_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = find_batches(job_of({**AUTO, "resolution": 16}), num_classes=5, num_samples=40)
    assert isinstance(found, Finding)
    assert (found.resolution, found.batch) == (16, 40)
    assert len(json.loads((tmp_path / "resolute" / "batch-sizes.json").read_text())) == 1


def test_a_search_that_fails_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(BatchSizeError, match="exit code 1; give numbers"):
        find_batches(job_of(AUTO), num_classes=5, num_samples=40)


def test_an_open_batch_is_not_planned() -> None:
    with pytest.raises(PlanError, match=r"phases\[0\].batch_per_worker: auto is found by trying"):
        build_plan(job_of(AUTO), num_samples=100, world_size=1)


@needs_no_gpu
def test_a_run_takes_what_is_found_and_its_resume_takes_the_same(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    job = write_job(tmp_path, drawn, phases=[{**JOB["phases"][0], **AUTO, "epochs": 1, "global_batch": 120}])
    paths = RunPaths(tmp_path / "run")

    def run() -> Any:
        return CliRunner().invoke(app, ["run", str(job), "--run-dir", str(paths.root)], catch_exceptions=False)

    assert "looking for the batches" in run().output
    assert load_job(str(paths.job)).phases[0].batch_per_worker == 64
    (tmp_path / "resolute" / "batch-sizes.json").unlink()
    again = run().output
    assert "is finished already" in again
    assert "looking for" not in again

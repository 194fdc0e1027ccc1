"""Three ranks, one of them killed in the middle of an epoch: what comes after is what would have come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ffcv_datasets.crop import CentreView
from ffcv_datasets.loader import Loader
from launcher.checkpoint import load, newest_valid
from launcher.coordinator import Done
from launcher.data_facts import read_data_facts
from launcher.event_log import read_events
from launcher.models import build_model
from launcher.plan import Position
from tests.faults.attempts import Kill
from tests.faults.kill_engine import Ending
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import TinyRun, make_job

KILL = Kill("trainer.step", rank=1, occurrence=12)


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("whole"), make_job(tiny_data, workers=3))
    outcome = nursery.run(run.attempt())
    assert outcome.end == Done(), outcome.error
    return run


@pytest.fixture(scope="module")
def killed(nursery: Nursery, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("killed"), make_job(tiny_data, workers=3))
    nursery.run(run.attempt(kill=KILL))
    assert run.attempts[0].killed.exists()
    outcome = nursery.run(run.attempt())
    assert outcome.end == Done(), outcome.error
    return run


def test_it_goes_on_in_the_middle_of_the_epoch(killed: TinyRun) -> None:
    assert killed.attempts[1].start() == (Position(1, 60), 3)


@pytest.mark.parametrize("what", ["final", "model", "average", "optimizer", "rng", "facts"])
def test_it_ends_with_the_same(what: str, whole: TinyRun, killed: TinyRun) -> None:
    expected, sums = whole.sums(), killed.sums()
    names = [name for name in expected if name.endswith(what)]
    assert names
    assert {name: sums[name] for name in names} == {name: expected[name] for name in names}


@pytest.mark.parametrize("what", ["evaluations", "ledger"])
def test_it_was_trained_and_measured_the_same(what: str, whole: TinyRun, killed: TinyRun) -> None:
    assert getattr(Ending.of(killed), what) == getattr(Ending.of(whole), what)


def test_every_rank_draws_numbers_of_its_own(whole: TinyRun) -> None:
    newest = newest_valid(whole.paths.checkpoints).newest
    assert newest is not None
    drawn = {tuple(load(newest)[0]["rng"][f"rank{rank}/torch_cpu"].tolist()) for rank in range(3)}
    assert len(drawn) == 3


def test_the_accuracy_that_is_told_is_that_of_the_final_weights(whole: TinyRun) -> None:
    told = [event for event in read_events(whole.paths.events) if event["event"] == "evaluated"][-1]
    facts = read_data_facts(whole.job, source="the test's job")
    model = build_model(whole.job.model, num_classes=facts.num_classes, seed=0).eval()
    model.load_state_dict(load_file(whole.paths.model))
    assert whole.job.data.val is not None
    with Loader(whole.job.data.val) as data:
        view = CentreView(told["resolution"], crop_ratio=whole.job.evaluation.crop_ratio)
        batch = next(data.batches([np.arange(data.num_samples)], view))
        mean, std = torch.tensor(facts.channel_mean), torch.tensor(facts.channel_std)
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
        with torch.inference_mode():
            logits = model(((images - mean) / std).permute(0, 3, 1, 2))
        assert told["samples"] == data.num_samples
        assert told["top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-6)
        assert told["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

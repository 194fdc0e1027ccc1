"""Three ranks, one of them killed in the middle of an epoch: what comes after is what would have come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffcv_datasets.crop import CentreView
from ffcv_datasets.loader import Loader
from launcher.checkpoint import load, newest_valid, scan
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
EPOCH_END = ("evaluated", "epoch_end")


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


def test_the_accuracies_that_are_told_are_those_of_the_weights_in_the_checkpoints(
    nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    # A checkpoint between an epoch's last step and its evaluation would hide what ranks differ in.
    run = TinyRun(tmp_path, make_job(tiny_data, workers=3, checkpoint={"every_minutes": None}))
    assert nursery.run(run.attempt()).end == Done()
    told = {e["epoch"]: e for e in read_events(run.paths.events) if (e["event"], e.get("moment")) == EPOCH_END}
    facts = read_data_facts(run.job, source="the test's job")
    model = build_model(run.job.model, num_classes=facts.num_classes, seed=0).eval()
    mean, std = torch.tensor(facts.channel_mean), torch.tensor(facts.channel_std)
    saved = {checkpoint.position: checkpoint for checkpoint in scan(run.paths.checkpoints).valid}
    assert run.job.data.val is not None
    with Loader(run.job.data.val) as data:
        for position in run.plan.phase_boundaries():
            expected = told[position.epoch - 1]
            average = load(saved[position])[0]["average"]
            del average["n_averaged"]
            model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in average.items()})
            view = CentreView(expected["resolution"], crop_ratio=run.job.evaluation.crop_ratio)
            batch = next(data.batches([np.arange(data.num_samples)], view))
            images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
            with torch.inference_mode():
                logits = model(((images - mean) / std).permute(0, 3, 1, 2))
            assert expected["samples"] == data.num_samples
            assert expected["top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-6)
            assert expected["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

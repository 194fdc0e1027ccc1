"""Saving beside training: what is copied stays as it was, what fails is told, and the best is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from launcher.checkpoint import load, newest_valid
from launcher.config import Checkpoint
from launcher.manifest import verify
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.saving import Best, HostCopies, Saver, Standing
from launcher.trainer import SpanResult, Trainer
from tests.unit.sample_jobs import make_plan

PLAN = make_plan({"epochs": 6})


def small_trainer() -> Trainer:
    """What a Saver uses of one."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    fake = SimpleNamespace(
        model=model, optimizer=optimizer, scaler=scaler, average=None, synchronise_buffers=lambda: None
    )
    return cast(Trainer, fake)


def saver_in(folder: Path, **cadence: Any) -> Saver:
    return Saver(RunPaths(folder), PLAN, Checkpoint(**cadence), rank=0)


def kept(folder: Path) -> list[Position]:
    return sorted(verify(path).position for path in RunPaths(folder).checkpoints.iterdir())


def test_copies_are_as_the_tensors_were_in_shape_order_and_ties() -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    parts = {"model": {"a": weight, "tied": weight, "empty": torch.zeros(0)}, "rng": {"a": torch.tensor(3)}}
    copies = HostCopies().take(parts)
    was = weight.clone()
    weight.add_(1)
    assert torch.equal(copies["model"]["a"], was)
    assert copies["model"]["a"].stride() == weight.stride()
    assert copies["model"]["tied"] is copies["model"]["a"]
    assert copies["rng"]["a"].item() == 3


def test_copies_use_their_memory_again() -> None:
    copies = HostCopies()
    first = copies.take({"model": {"a": torch.zeros(5)}})["model"]["a"].data_ptr()
    again = copies.take({"model": {"a": torch.ones(5)}})["model"]["a"]
    assert (again.data_ptr(), again.tolist()) == (first, [1] * 5)
    longer = copies.take({"model": {"a": torch.ones(9)}})["model"]["a"]
    assert longer.tolist() == [1] * 9


def test_what_is_saved_is_the_state_at_the_call_whatever_training_does_meanwhile(tmp_path: Path) -> None:
    trainer, saver = small_trainer(), saver_in(tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    saver.save(trainer, Position(0, 8), Standing(epoch=SpanResult(samples=8, loss_sum=2.5)))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.fill_(7)
    saved = saver.take_saved(wait=True)
    assert saved is not None
    parts, facts = load(saved.info)
    assert all(torch.equal(parts["model"][name], tensor) for name, tensor in before.items())
    assert facts["standing"]["epoch"] == {"samples": 8, "seconds": 0.0, "data_wait_s": 0.0, "loss_sum": 2.5}
    assert saver.take_saved(wait=True) is None


def test_restoring_tells_how_the_run_stood(tmp_path: Path) -> None:
    saver = saver_in(tmp_path)
    standing = Standing(SpanResult(8, 1.5, 0.5, 2.5), last_top1=0.25, evaluated_epoch=1, best=Best(0.5, Position(1)))
    saver.save(small_trainer(), Position(2, 8), standing)
    saved = saver.take_saved(wait=True)
    assert saved is not None
    assert saver.restore(small_trainer(), saved.info.path) == standing
    other_rank = Saver(RunPaths(tmp_path), PLAN, Checkpoint(), rank=1)
    assert other_rank.restore(small_trainer(), saved.info.path).epoch == SpanResult(8, 1.5, 0.5, 0.0)


def test_a_save_that_failed_is_told_at_the_next_question(tmp_path: Path) -> None:
    RunPaths(tmp_path).checkpoints.write_text("in the way")
    saver = saver_in(tmp_path)
    saver.save(small_trainer(), Position(0, 8), Standing())
    with pytest.raises(FileExistsError):
        saver.take_saved(wait=True)


def test_an_error_in_training_lets_a_save_that_was_begun_come_to_its_end(tmp_path: Path) -> None:
    saver = saver_in(tmp_path)
    saver.save(small_trainer(), Position(0, 8), Standing())
    saver.settle()
    assert newest_valid(RunPaths(tmp_path).checkpoints).newest is not None


@pytest.mark.parametrize(("keep_best", "positions"), [(True, [Position(2), Position(5)]), (False, [Position(5)])])
def test_the_best_checkpoint_stays_beside_the_last(keep_best: bool, positions: list[Position], tmp_path: Path) -> None:
    trainer, saver, standing = small_trainer(), saver_in(tmp_path, keep_last=1, keep_best=keep_best), Standing()
    for epoch, top1 in enumerate([0.1, 0.6, 0.6, 0.3, 0.5]):
        standing = Standing(last_top1=top1, evaluated_epoch=epoch, best=standing.best).at(Position(epoch + 1))
        saver.save(trainer, Position(epoch + 1), standing)
        saver.take_saved(wait=True)
    assert kept(tmp_path) == positions


@pytest.mark.parametrize(
    ("position", "best"),
    [
        pytest.param(Position(3), Best(0.6, Position(3)), id="evaluated here"),
        pytest.param(Position(3, 8), Best(0.5, Position(1)), id="trained on since"),
        pytest.param(Position(4), Best(0.5, Position(1)), id="not evaluated after this epoch"),
    ],
)
def test_only_an_accuracy_measured_at_a_checkpoint_makes_it_the_best(position: Position, best: Best) -> None:
    standing = Standing(last_top1=0.6, evaluated_epoch=2, best=Best(0.5, Position(1)))
    assert standing.at(position).best == best

"""Each phase's step is tried first, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.rehearsal import RehearsalError, rehearse
from launcher.run_setup import check_job, prepare_run
from launcher.trainer import Trainer
from launcher.training_state import optimizer_tensors
from launcher.worker_process import Place, _build_trainer
from tests.integration.toy import JOB, write_job


@pytest.fixture
def trainer(drawn: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Trainer]:
    changes: dict[str, Any] = getattr(request, "param", {})
    path = write_job(tmp_path, drawn, ema={"decay": 0.9}, **changes)
    job, plan, data = check_job(load_job(str(path)), source=str(path))
    (tmp_path / "run").mkdir()
    setup = prepare_run(job, plan, data, paths=RunPaths(tmp_path / "run"), accept_changes=False)
    with ExitStack() as stack:
        yield _build_trainer(setup, Place.alone(), torch.float32, {}, stack)


def sizes_seen(trainer: Trainer, model: nn.Module | None = None) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    (model or trainer.model).register_forward_pre_hook(lambda _model, inputs: seen.append(tuple(inputs[0].shape)))
    return seen


def test_every_phase_takes_a_step_the_largest_first(trainer: Trainer) -> None:
    seen = sizes_seen(trainer)
    rehearse(trainer, trainer.plan.rows)
    assert seen == [(16, 3, 24, 24), (32, 3, 12, 12), (16, 3, 16, 16)]


def test_on_a_resume_only_what_is_left_is_tried(trainer: Trainer) -> None:
    seen = sizes_seen(trainer)
    rehearse(trainer, trainer.plan.rows[4:])
    assert seen == [(16, 3, 24, 24)]


@pytest.mark.parametrize(
    ("trainer", "shape"),
    [
        ({}, (57, 3, 24, 24)),
        ({"evaluation": {"resolution": 40, "batch_per_worker": 20}}, (20, 3, 40, 40)),
    ],
    indirect=["trainer"],
    ids=["at the training size, all there is", "at a size of its own"],
)
def test_a_batch_of_the_largest_evaluation_is_tried_on_the_model_that_is_judged(
    trainer: Trainer, shape: tuple[int, ...]
) -> None:
    seen = sizes_seen(trainer, trainer.outcome)
    rehearse(trainer, trainer.plan.rows)
    assert seen == [shape]


def test_after_the_last_epoch_nothing_is_tried(trainer: Trainer) -> None:
    seen, judged = sizes_seen(trainer), sizes_seen(trainer, trainer.outcome)
    rehearse(trainer, [])
    assert (seen, judged) == ([], [])


def test_the_rehearsal_of_an_evaluation_changes_no_score_and_draws_nothing(trainer: Trainer) -> None:
    before = trainer.evaluate(24)
    drawn = torch.get_rng_state()
    assert trainer.examination is not None
    trainer.examination.try_batch(trainer.outcome, 24)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert trainer.evaluate(24) == before


@pytest.mark.parametrize(
    "trainer",
    [{}, {"phases": [{**JOB["phases"][0], "trainable": "classifier", "batch_per_worker": 8}, JOB["phases"][1]]}],
    indirect=True,
    ids=["plain", "frozen, accumulating"],
)
def test_it_leaves_everything_as_it_was(trainer: Trainer) -> None:
    def state() -> dict[str, Tensor]:
        assert trainer.average is not None
        averaged = {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
        return {**trainer.model.state_dict(), **averaged}

    before = {name: tensor.clone() for name, tensor in state().items()}
    rehearse(trainer, trainer.plan.rows)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state().items())
    assert optimizer_tensors(trainer.model, trainer.optimizer) == {}
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


class Narrow(nn.Module):
    """Runs out of memory as torch does, beyond so many values."""

    def __init__(self, num_values: int):
        super().__init__()
        self.num_values = num_values

    def forward(self, images: Tensor) -> Tensor:
        if images.numel() > self.num_values:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return images


def test_a_phase_that_does_not_fit_is_named_with_what_to_do(trainer: Trainer) -> None:
    stem = trainer.model.get_submodule("stem")
    assert isinstance(stem, nn.Sequential)
    stem.insert(0, Narrow(16 * 3 * 16 * 16))
    reason = r"phases\[2\]: 16 samples of 24 px at once .* rank 0's machine \(CUDA out of memory\); use a smaller"
    with pytest.raises(RehearsalError, match=reason):
        rehearse(trainer, trainer.plan.rows)


@pytest.mark.parametrize("trainer", [{"evaluation": {"resolution": 48}}], indirect=True)
def test_an_evaluation_that_does_not_fit_is_named_with_what_to_do(trainer: Trainer) -> None:
    stem = trainer.outcome.get_submodule("stem")
    assert isinstance(stem, nn.Sequential)
    stem.insert(0, Narrow(16 * 3 * 24 * 24))
    reason = (
        r"evaluation: 57 images of 48 px .* rank 0's machine \(CUDA out of memory\); use a smaller evaluation.batch"
    )
    with pytest.raises(RehearsalError, match=reason):
        rehearse(trainer, trainer.plan.rows)


def test_any_other_error_is_told_as_it_is(trainer: Trainer) -> None:
    trainer.model.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="shapes"):
        rehearse(trainer, trainer.plan.rows)


def _fail(*_: object) -> None:
    raise RuntimeError("shapes do not match")

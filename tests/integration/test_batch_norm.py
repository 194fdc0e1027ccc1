"""Norm statistics at a change of size: those of the same samples reckoned at once, the same bits on every rank."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader
from launcher.batch_norm import freeze, norm_layers, recalibrate
from launcher.checkpoint import load
from launcher.config import Model
from launcher.coordinator import Done, Stop
from launcher.events import Event, TransitionMade
from launcher.executors.single import DirectLink
from launcher.job_file import load_job
from launcher.manifest import verify
from launcher.models import build_model
from launcher.paths import RunPaths
from launcher.run_setup import check_job, prepare_run
from launcher.sample_order import order, rank_batches
from launcher.tasks.classification import Scores
from launcher.trainer import Trainer
from launcher.worker_process import Place, run_worker
from tests.integration.toy import write_job

SMALL = Model(name="small_resnet", options={"width": 4, "blocks_per_stage": 1, "dropout": 0.5})


def small_model() -> nn.Module:
    return build_model(SMALL, num_classes=3, seed=1)


def images(number: int, *, of: int = 12, px: int = 10) -> Tensor:
    """A batch whose brightness and contrast depend on its number, so that no two batches have the same moments."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(of, 3, px, px, generator=generator) * (1 + number) + number


def norm_inputs(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Everything that comes to each norm, (C, values), float64, with norms alone in training mode."""
    seen: dict[str, list[Tensor]] = {name: [] for name, layer in model.named_modules() if layer in norm_layers(model)}
    model.eval()
    for name in seen:
        layer = model.get_submodule(name)
        layer.training = True
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].transpose(0, 1)))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return {name: torch.cat([part.flatten(1) for part in parts], dim=1).double() for name, parts in seen.items()}


def assert_statistics_of(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    for name, values in inputs.items():
        layer = model.get_submodule(name)
        torch.testing.assert_close(layer.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), values.var(1), rtol=1e-5, atol=1e-5)


def test_statistics_are_those_of_all_samples_at_once() -> None:
    model, batches = small_model(), [images(number) for number in range(4)]
    recalibrate([model], batches)
    inputs = norm_inputs(small_model(), batches)
    assert len(inputs) == 9
    assert_statistics_of(model, inputs)
    first = torch.cat(batches)
    stem = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))(first).double()
    assert_statistics_of(model, {next(iter(inputs)): stem.transpose(0, 1).flatten(1)})


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (lambda: nn.BatchNorm1d(5), (8, 5)),
        (lambda: nn.BatchNorm1d(5, momentum=None), (8, 5, 3)),
        (lambda: nn.BatchNorm2d(5, affine=False), (8, 5, 3, 3)),
        (lambda: nn.BatchNorm3d(5), (8, 5, 2, 2, 2)),
        (lambda: BatchNormAct2d(5, drop_layer=nn.Dropout), (8, 5, 3, 3)),
    ],
)
def test_every_kind_of_batch_norm_is_recalibrated(norm: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    layer = norm()
    batches = [torch.randn(shape) * k + k for k in (1, 2, 3)]
    before = torch.random.get_rng_state()
    recalibrate([layer], batches)
    assert_statistics_of(layer, {"": torch.cat(batches).transpose(0, 1).flatten(1).double()})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_synchronised_norms_count_and_norms_without_statistics_do_not() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3))
    assert norm_layers(model) == [model[0]]


def test_nothing_but_statistics_changes() -> None:
    model = small_model().train()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    random_numbers = torch.random.get_rng_state()
    recalibrate([model], [images(0)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    assert torch.equal(torch.random.get_rng_state(), random_numbers)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert {layer.momentum for layer in norm_layers(model)} == {layer.momentum for layer in norm_layers(small_model())}


def test_made_again_it_gives_the_same_bits_and_each_model_its_own() -> None:
    model, other = small_model(), build_model(SMALL, num_classes=3, seed=2)
    batches = [images(number) for number in range(3)]
    recalibrate([model, other], batches)
    first = {name: buffer.clone() for name, buffer in model.named_buffers()}
    recalibrate([model], batches)
    assert all(torch.equal(buffer, first[name]) for name, buffer in model.named_buffers())
    assert_statistics_of(other, norm_inputs(build_model(SMALL, num_classes=3, seed=2), batches))


def test_a_frozen_norm_normalises_by_its_statistics_and_keeps_them() -> None:
    model = small_model().train()
    recalibrate([model], [images(0)])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    freeze(model)
    model.get_submodule("dropout").eval()
    logits = model(images(3))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    torch.testing.assert_close(logits, model.eval()(images(3)))
    model.train()(images(3))
    assert any(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


# Of different moments and sizes: a mean of the ranks' variances would be another number.
RANK_BATCHES = [[images(0), images(1)], [images(2), images(3)], [images(4, of=6), images(5, of=30)]]


def recalibrate_as(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    world_size = len(RANK_BATCHES)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    model = small_model()
    recalibrate([model], RANK_BATCHES[rank], sum_over_ranks=dist.all_reduce)
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_all_ranks_hold_the_same_bits_which_are_the_statistics_of_all_their_samples(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=recalibrate_as, args=(rank, tmp_path)) for rank in range(len(RANK_BATCHES))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(ranks))]
    for state in states[1:]:
        assert all(torch.equal(tensor, states[0][name]) for name, tensor in state.items())
    model = small_model()
    model.load_state_dict(states[0])
    assert_statistics_of(model, norm_inputs(small_model(), [batch for batches in RANK_BATCHES for batch in batches]))


@dataclasses.dataclass
class Evaluation:
    """What was judged, and how well."""

    model: dict[str, Tensor]
    """The last weights and buffers, whatever was judged."""
    average: dict[str, Tensor]
    scores: Scores


class Run:
    """A whole run of the toy job in this process, and every evaluation of it."""

    def __init__(self, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any):
        folder.mkdir()
        self.data = data
        self.events: list[Event] = []
        self.evaluations: list[Evaluation] = []
        phases = [
            {"epochs": 1, "resolution": 12, "global_batch": 32, "crop_scale": [0.5, 1.0]},
            {"epochs": 2, "resolution": 24, "global_batch": 32, "crop_scale": [0.5, 1.0]},
        ]
        job_path = write_job(folder, data, **{"phases": phases, "ema": {"decay": 0.5}, **changes})
        job, self.plan, facts = check_job(load_job(str(job_path)), source="toy")
        self.pixels = facts.channel_mean, facts.channel_std
        self.paths = RunPaths(folder)
        setup = prepare_run(job, self.plan, facts, paths=self.paths, accept_changes=False)
        evaluate = Trainer.evaluate

        def watched(trainer: Trainer, resolution: int) -> Scores:
            scores = evaluate(trainer, resolution)
            states = [model.state_dict() for model in (trainer.model, trainer.outcome)]
            copies = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
            self.evaluations.append(Evaluation(copies[0], copies[1], scores))
            return scores

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "evaluate", watched)
            self.outcome: Stop | Done = run_worker(
                setup, Place.alone(), DirectLink(setup.coordinator(), [], self.events.append)
            )

    def transition(self) -> TransitionMade:
        return next(event for event in self.events if isinstance(event, TransitionMade))

    def checkpoint(self, epoch: int) -> dict[str, dict[str, Tensor]]:
        parts, _ = load(verify(next(p for p in self.paths.checkpoints.iterdir() if p.name.startswith(f"e{epoch:05}-"))))
        return parts

    def inputs(self, epoch: int, num_batches: int) -> list[Tensor]:
        """The model's inputs in the first batches of an epoch."""
        spec = self.plan.rows[epoch]
        samples = rank_batches(
            order(self.plan.seed, epoch, self.plan.num_samples),
            start=0,
            until=num_batches * spec.global_batch,
            global_batch=spec.global_batch,
            rank=0,
            world_size=1,
        )
        view = TrainView(self.plan.seed, epoch, spec.resolution, crop_scale=spec.crop_scale)
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in self.pixels)
        with Loader(self.data / "train.beton") as loader:
            decoded = [batch.images.copy() for batch in loader.batches(samples, view)]
        return [(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std for pixels in decoded]


RECALIBRATE = {"kind": "recalibrate", "num_batches": 3}


def test_a_run_recalibrates_weights_and_average_before_it_evaluates_at_the_new_size(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(drawn, tmp_path / "run", monkeypatch, norm=RECALIBRATE)
    boundary, (before, after, *_) = run.checkpoint(1), run.evaluations
    for part, state in (("model", after.model), ("average", after.average)):
        model = build_model(Model(**{**SMALL.model_dump(), "options": run_options()}), num_classes=12, seed=0)
        prefix = "module." if part == "average" else ""
        weights = {n.removeprefix(prefix): t for n, t in boundary[part].items() if n.startswith(prefix)}
        model.load_state_dict({name: tensor for name, tensor in weights.items() if name != "n_averaged"})
        inputs = norm_inputs(model, run.inputs(1, 3))
        model.load_state_dict(state)
        assert_statistics_of(model, inputs)
        parameters = dict(model.named_parameters())
        assert all(torch.equal(state[name], weights[name]) for name in parameters)
    assert (run.transition().norm, run.transition().top1_after) == ("recalibrated", after.scores.top1)
    assert before.scores != after.scores


def run_options() -> dict[str, object]:
    return {"width": 4, "blocks_per_stage": 1}


def test_recalibrated_statistics_judge_far_better_at_the_new_size_than_those_of_the_old_one(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [
        {"epochs": 6, "resolution": 12, "global_batch": 32, "crop_scale": [0.5, 1.0]},
        {"epochs": 1, "resolution": 24, "global_batch": 32, "crop_scale": [0.5, 1.0]},
    ]
    job: dict[str, Any] = {
        "phases": phases,
        "model": {"name": "small_resnet", "options": {"width": 8, "blocks_per_stage": 1}},
        "learning_rate": {"base": 0.2, "base_batch": 32},
        "ema": None,
        "evaluation": {"every_epochs": 9},
    }
    left = Run(drawn, tmp_path / "left", monkeypatch, **job)
    recalibrated = Run(drawn, tmp_path / "recalibrated", monkeypatch, norm=RECALIBRATE, **job)
    assert left.transition().norm == "none"
    assert left.evaluations[0].scores == recalibrated.evaluations[0].scores
    assert recalibrated.evaluations[1].scores.loss < left.evaluations[1].scores.loss - 0.2


def test_frozen_statistics_hold_for_their_epochs_and_are_then_released(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(drawn, tmp_path / "run", monkeypatch, norm={"kind": "freeze", "epochs": 1})
    _, _, frozen, released = (evaluation.model for evaluation in run.evaluations)
    boundary = run.checkpoint(1)["model"]
    statistics = [name for name in boundary if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(frozen[name], boundary[name])
        assert not torch.equal(released[name], boundary[name])
    assert not torch.equal(frozen["classifier.weight"], boundary["classifier.weight"])
    assert run.transition().norm == "frozen"


def test_an_evaluation_size_of_its_own_is_judged_anew_only_after_recalibration(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Run(drawn, tmp_path / "kept", monkeypatch, evaluation={"resolution": 24})
    anew = Run(drawn, tmp_path / "anew", monkeypatch, evaluation={"resolution": 24}, norm=RECALIBRATE)
    assert [len(run.evaluations) for run in (kept, anew)] == [3, 4]
    assert kept.transition().top1_after is None
    assert anew.transition().top1_after == anew.evaluations[1].scores.top1

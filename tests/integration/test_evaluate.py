"""`resolute evaluate`: a run's model judged at several sizes."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from launcher.cli.app import app
from launcher.cli.evaluate import EvaluationError
from launcher.event_log import read_events
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.size_sweep import SweepError, batch_at, default_sizes, sweep
from launcher.trained_model import TrainedModel, TrainedModelError, load_trained
from tests.integration.toy import JOB, write_job


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> RunPaths:
    """Two epochs at 16 px, with an average, and evaluations at 24 px."""
    folder = tmp_path_factory.mktemp("finished")
    phases = [{**JOB["phases"][0], "resolution": 16}]
    job = write_job(folder, drawn, phases=phases, ema={"decay": 0.5}, evaluation={"resolution": 24, "crop_ratio": 0.9})
    paths = RunPaths(folder / "run")
    assert invoke("run", job, "--run-dir", paths.root).exit_code == 0
    return paths


@pytest.fixture
def run(finished: RunPaths, tmp_path: Path) -> RunPaths:
    return RunPaths(Path(shutil.copytree(finished.root, tmp_path / "run")))


def test_the_figures_at_the_runs_own_size_are_those_that_the_run_told(run: RunPaths) -> None:
    told = [event for event in read_events(run.events) if event["event"] == "evaluated"][-1]
    result = invoke("evaluate", run.root, "--sizes", "24,16")
    assert result.exit_code == 0
    kept = json.loads(run.evaluation.read_text())
    assert [at["resolution"] for at in kept["sizes"]] == [16, 24]
    assert kept["data"] == load_job(str(run.job)).data.val
    at_24 = kept["sizes"][1]
    assert at_24 == {
        key: pytest.approx(told[key], rel=1e-6) for key in ("resolution", "samples", "top1", "top5", "loss")
    }
    assert kept["sizes"][0]["samples"] == told["samples"] == 57
    assert f"{at_24['top1']:.2%}" in result.output


def test_the_curve_is_drawn_beside_the_figures(run: RunPaths) -> None:
    pytest.importorskip("matplotlib")
    invoke("evaluate", run.root, "--sizes", "12,16,24,32")
    image = run.evaluation.with_suffix(".png").read_bytes()
    assert image.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", image[16:24])
    assert (width, height) == (648, 456)


def test_without_matplotlib_the_figures_are_kept_all_the_same(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    result = invoke("evaluate", run.root, "--sizes", "16")
    assert result.exit_code == 0
    assert "pip install 'resolute[plot]'" in result.output
    assert run.evaluation.is_file()


def test_a_checkpoint_is_judged_by_its_average_as_the_run_judged_it(run: RunPaths) -> None:
    told = [event for event in read_events(run.events) if event["event"] == "evaluated"]
    invoke("evaluate", run.root, "--sizes", "24", "--checkpoint", "e00001-s000000000")
    assert json.loads(run.evaluation.read_text())["sizes"][0]["loss"] == pytest.approx(told[0]["loss"], rel=1e-6)


def test_an_unfinished_run_is_judged_by_its_newest_checkpoint(run: RunPaths) -> None:
    run.model.unlink()
    assert load_trained(run).source.name == "e00002-s000000000"


def test_the_crop_ratio_may_be_another(run: RunPaths) -> None:
    losses = []
    for ratio in ("0.9", "0.5"):
        invoke("evaluate", run.root, "--sizes", "24", "--crop-ratio", ratio)
        losses.append(json.loads(run.evaluation.read_text())["sizes"][0]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sizes", "12,x"], "--sizes 12,x: is not a list of sizes"),
        (["--sizes", ""], "--sizes '': is not a list of sizes"),
        (["--sizes", "4"], "from 8 to 4096 px"),
        (["--checkpoint", "e00009-s000000000"], "there are e00001-s000000000, e00002-s000000000 in"),
        (["--checkpoint", "../checkpoints/e00001-s000000000"], "there are e00001"),
        (["--crop-ratio", "1.5"], "at most 1"),
        (["--data", "nowhere.beton"], "nowhere.beton: there is no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_told(options: list[str], sentence: str, finished: RunPaths) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        invoke("evaluate", finished.root, *options)


def test_data_with_more_classes_than_the_model_knows_are_refused(finished: RunPaths, tmp_path: Path) -> None:
    num_classes = load_trained(finished).num_classes
    for label in range(num_classes + 1):
        path = tmp_path / "images" / f"{label:02}" / "0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(path)
    assert invoke("data", "write", tmp_path / "images", tmp_path / "more.beton").exit_code == 0
    sentence = (
        f"more.beton holds label {num_classes}, and the model knows {num_classes} classes, 0 .. {num_classes - 1}"
    )
    with pytest.raises(SweepError, match=sentence):
        invoke("evaluate", finished.root, "--sizes", "16", "--data", tmp_path / "more.beton")


@pytest.mark.parametrize(
    ("size", "batch"), [(8, 256), (160, 256), (161, 252), (320, 64), (1280, 4), (2560, 1), (4096, 1)]
)
def test_above_the_training_size_so_many_images_are_judged_at_once_as_take_the_same_memory(
    size: int, batch: int
) -> None:
    assert batch_at(size, batch=256, trained_at=160) == batch


def test_a_sweep_takes_fewer_images_at_larger_sizes_and_judges_each_of_them(
    finished: RunPaths,
) -> None:
    seen: list[tuple[int, ...]] = []
    trained = load_trained(finished)
    trained.model.register_forward_pre_hook(lambda _model, inputs: seen.append(tuple(inputs[0].shape)))
    assert trained.job.data.val is not None
    small = trained.job.evaluation.model_copy(update={"batch_per_worker": 40})
    swept = sweep(trained, Path(trained.job.data.val), [16, 32], settings=small)
    assert [at.scores.samples for at in swept] == [57, 57]
    assert [shape[0] for shape in seen if shape[2] == 16] == [40, 17]
    assert [shape[0] for shape in seen if shape[2] == 32] == [10, 10, 10, 10, 10, 7]


def test_a_size_that_does_not_fit_into_the_memory_is_named(finished: RunPaths) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trained = load_trained(finished)
    trained.model.register_forward_pre_hook(fail)
    assert trained.job.data.val is not None
    with pytest.raises(
        SweepError, match=r"32 px: 64 images of that size .* \(CUDA out of memory\); leave that size out"
    ):
        list(sweep(trained, Path(trained.job.data.val), [32], settings=trained.job.evaluation))


def test_sizes_before_one_that_does_not_fit_are_kept(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_32(_model: object, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].shape[2] == 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def load(paths: RunPaths, checkpoint: Path | None = None) -> TrainedModel:
        trained = load_trained(paths, checkpoint)
        trained.model.register_forward_pre_hook(fail_at_32)
        return trained

    monkeypatch.setattr("launcher.trained_model.load_trained", load)
    with pytest.raises(SweepError, match="32 px"):
        invoke("evaluate", run.root, "--sizes", "16,24,32,40")
    assert [at["resolution"] for at in json.loads(run.evaluation.read_text())["sizes"]] == [16, 24]
    assert run.evaluation.with_suffix(".png").is_file()


def test_a_directory_without_a_run_or_a_model_is_told(run: RunPaths, tmp_path: Path) -> None:
    with pytest.raises(TrainedModelError, match="is no run directory"):
        load_trained(RunPaths(tmp_path))
    run.model.unlink()
    shutil.rmtree(run.checkpoints)
    with pytest.raises(TrainedModelError, match=r"neither model.safetensors nor a checkpoint"):
        load_trained(run)


@pytest.mark.parametrize(
    ("trained_at", "sizes"),
    [(160, [128, 160, 192, 224, 256, 288, 320]), (32, [24, 32, 40, 48, 56, 64]), (16, [12, 16, 20, 24, 28, 32])],
)
def test_by_default_sizes_reach_from_below_the_training_size_to_twice_it(trained_at: int, sizes: list[int]) -> None:
    assert set(default_sizes(trained_at)) <= set(sizes)
    assert default_sizes(trained_at)[0] < trained_at < default_sizes(trained_at)[-1] == 2 * trained_at

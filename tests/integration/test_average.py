"""The moving average of weights: reckoned anew from every step's weights, and what it gains in accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from launcher.events import Evaluated, Event
from launcher.executors.single import run_single
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.run_setup import check_job, prepare_run
from tests.integration.toy import write_job

WEIGHT = "classifier.weight"
ROUGH: dict[str, Any] = {
    "phases": [{"epochs": 20, "resolution": 16, "global_batch": 16, "crop_scale": [0.5, 1.0]}],
    "model": {"name": "small_resnet", "options": {"width": 8, "blocks_per_stage": 1}},
    "learning_rate": {"base": 0.05, "base_batch": 16},
    "checkpoint": {"every_epochs": 100},
}
"""Steps so large, and from so few samples, that every epoch's last weights are a matter of chance."""


def run(folder: Path, data: Path, **changes: Any) -> tuple[RunPaths, float]:
    """Train; where the run lies, and the mean of its last ten evaluations' losses."""
    folder.mkdir()
    job, plan, facts = check_job(load_job(str(write_job(folder, data, **changes))), source="toy")
    paths = RunPaths(folder)
    events: list[Event] = []
    run_single(prepare_run(job, plan, facts, paths=paths, accept_changes=False), events.append)
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    return paths, sum(losses[-10:]) / len(losses[-10:])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The classifier's weights after every step of a run, float64."""
    seen: list[Tensor] = []
    step = torch.optim.SGD.step

    def watched(optimizer: torch.optim.SGD, *arguments: Any, **keywords: Any) -> Any:
        result = step(optimizer, *arguments, **keywords)
        weights = [tensor for group in optimizer.param_groups for tensor in group["params"] if tensor.shape[0] == 12]
        seen.append(next(tensor for tensor in weights if tensor.dim() == 2).detach().double().clone())
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    return seen


def test_it_is_the_average_that_its_definition_gives_of_every_second_steps_weights(
    drawn: Path, tmp_path: Path, steps: list[Tensor]
) -> None:
    phases = [{"epochs": 3, "resolution": 12, "global_batch": 32, "crop_scale": [0.5, 1.0]}]
    paths, _ = run(tmp_path / "run", drawn, phases=phases, ema={"decay": 0.8, "every_steps": 2})
    per_epoch = 250 // 32
    trained = steps[-3 * per_epoch :]  # Those of the rehearsal came before.
    averaged = [trained[epoch * per_epoch + at] for epoch in range(3) for at in range(1, per_epoch, 2)]
    expected = averaged[0]
    for weights in averaged[1:]:
        expected = 0.8 * expected + 0.2 * weights
    found = load_file(paths.model)[WEIGHT].double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, steps[-1], rtol=1e-3)


def test_it_judges_better_than_the_weights_that_it_averages(drawn: Path, tmp_path: Path, steps: list[Tensor]) -> None:
    _, loss = run(tmp_path / "last", drawn, **ROUGH)
    last_steps = list(steps)
    steps.clear()
    _, loss_of_average = run(tmp_path / "averaged", drawn, **ROUGH, ema={"decay": 0.95})
    assert all(map(torch.equal, steps, last_steps)), "averaging changed the training"
    assert loss_of_average < loss - 0.03

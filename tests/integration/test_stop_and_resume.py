"""A run stopped after any lease, and gone on with, is the run that was never stopped: weights, average and figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher.coordinator import Directive, Done, Run, Stop
from launcher.events import EpochTrained, Evaluated, Event, TransitionMade
from launcher.executors.single import DirectLink
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.run_setup import RunSetup, check_job, prepare_run
from launcher.worker_process import Place, run_worker
from tests.integration.toy import JOB, final_sums, write_job


class StoppingLink(DirectLink):
    """Asks for a stop once so many leases have been granted."""

    def __init__(self, setup: RunSetup, *, stop_after_leases: int):
        self.coordinator = setup.coordinator()
        self.events: list[Event] = []
        self._leases_left = stop_after_leases
        super().__init__(self.coordinator, [], self.events.append)

    def next(self, *, rank: int, turn: int, position: Position, samples_per_s: float | None) -> Directive:
        directive = super().next(rank=rank, turn=turn, position=position, samples_per_s=samples_per_s)
        self._leases_left -= isinstance(directive, Run)
        if self._leases_left == 0:
            self.coordinator.request_stop("asked to")
        return directive


def train(job_path: Path, root: Path, *, stop_after_leases: int = -1) -> tuple[Stop | Done, list[Event]]:
    root.mkdir(exist_ok=True)
    job, plan, data = check_job(load_job(str(job_path)), source=str(job_path))
    setup = prepare_run(job, plan, data, paths=RunPaths(root), accept_changes=False)
    link = StoppingLink(setup, stop_after_leases=stop_after_leases)
    return run_worker(setup, Place.alone(), link), link.events


@pytest.fixture(scope="module")
def job_path(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    dropout = {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1, "dropout": 0.2}}
    ema = {"decay": 0.9, "every_steps": 2}
    norm = {"kind": "recalibrate", "num_batches": 3}
    phases = [*JOB["phases"][:-1], {**JOB["phases"][-1], "norm": {"kind": "freeze"}}]
    augmentation = {
        "policy": {"kind": "rand_augment", "magnitude": {"start": 5, "end": 15}},
        "random_erasing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
        "dropout": {"start": 0.1, "end": 0.3},
    }
    sections = {"model": dropout, "ema": ema, "norm": norm, "phases": phases, "augmentation": augmentation}
    return write_job(tmp_path_factory.mktemp("job"), drawn, **sections)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, job_path: Path) -> tuple[RunPaths, list[Event]]:
    root = tmp_path_factory.mktemp("whole") / "run"
    outcome, events = train(job_path, root)
    assert outcome == Done()
    return RunPaths(root), events


def figures(events: list[Event]) -> list[object]:
    """What the events tell of the training, without the times."""
    told: list[object] = []
    for event in events:
        if isinstance(event, EpochTrained):
            told.append((event.epoch, event.samples, round(event.loss, 6)))
        elif isinstance(event, Evaluated):
            told.append(dataclasses.replace(event, seconds=0.0))
        elif isinstance(event, TransitionMade):
            told.append(dataclasses.replace(event, seconds=0.0, norm_seconds=0.0))
    return told


# Epochs 0 and 1 have 7 leases each, the others 15.
@pytest.mark.parametrize(
    "stop_after_leases",
    [
        pytest.param(3, id="in mid-epoch"),
        pytest.param(7, id="before an epoch's evaluation"),
        pytest.param(14, id="before a phase's last evaluation"),
        pytest.param(15, id="after a transition"),
        pytest.param(58, id="before the last step"),
    ],
)
def test_a_stop_and_a_resume_change_nothing(
    stop_after_leases: int, job_path: Path, uninterrupted: tuple[RunPaths, list[Event]], tmp_path: Path
) -> None:
    whole, events_of_whole = uninterrupted
    outcome, before = train(job_path, tmp_path / "run", stop_after_leases=stop_after_leases)
    assert isinstance(outcome, Stop)

    outcome, after = train(job_path, tmp_path / "run")

    assert outcome == Done()
    assert final_sums(RunPaths(tmp_path / "run")) == final_sums(whole)
    assert figures([*before, *after]) == figures(events_of_whole)

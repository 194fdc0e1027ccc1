"""A run that other numbers of workers go on with in mid-epoch trains the global batches of one that never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from ffcv_datasets.synthetic import CLASSES
from launcher.coordinator import Done, Stop
from launcher.models import build_model
from launcher.sample_order import order
from tests.faults.attempts import StopRequest
from tests.faults.ledger import faults, global_batches, read_ledger
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import NUM_SAMPLES, TinyRun, make_job

# Without random numbers of the ranks' own; a worker takes 3 samples at once, however many it needs for a step.
SAME_FOR_ANY_WORLD: dict[str, Any] = {
    "model": {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1, "norm": "group"}},
    "phases": [
        {"epochs": 2, "resolution": 12, "global_batch": 12, "batch_per_worker": 3},
        {"epochs": 2, "resolution": 16, "global_batch": 24, "batch_per_worker": 3, "warmup_epochs": 1},
    ],
}
WORLDS = (1, 2, 4, 2)


@pytest.fixture(scope="module")
def unchanged(nursery: Nursery, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("unchanged"), make_job(tiny_data, workers=2, **SAME_FOR_ANY_WORLD))
    outcome = nursery.run(run.attempt())
    assert outcome.end == Done(), outcome.error
    return run


@pytest.fixture(scope="module")
def resized(nursery: Nursery, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    job = make_job(tiny_data, workers={"min": 1, "max": 4}, **SAME_FOR_ANY_WORLD)
    run = TinyRun(tmp_path_factory.mktemp("resized"), job)
    train_in_worlds(nursery, run)
    return run


def train_in_worlds(nursery: Nursery, run: TinyRun, *, stop_at_turns: tuple[int, int, int] = (7, 7, 7)) -> None:
    for workers, turn in zip(WORLDS, stop_at_turns, strict=False):
        outcome = nursery.run(run.attempt(workers=workers, stop=StopRequest(turn, resize=True)))
        assert isinstance(outcome.end, Stop), outcome.error
        assert outcome.end.resize
        assert outcome.end.position.samples_done > 0, "to stop within an epoch"
    outcome = nursery.run(run.attempt(workers=WORLDS[-1]))
    assert outcome.end == Done(), outcome.error


def test_worlds_of_1_2_4_and_2_workers_train_identical_global_batches(unchanged: TinyRun, resized: TinyRun) -> None:
    assert [began[1] for traces in resized.attempts if (began := traces.start())] == [*WORLDS]
    ledger = read_ledger(resized.attempts)
    assert faults(ledger, unchanged.plan) == []
    assert global_batches(ledger) == global_batches(read_ledger(unchanged.attempts))
    assert {step.position: step.learning_rate for step in ledger} == {
        step.position: step.learning_rate for step in read_ledger(unchanged.attempts)
    }


def difference(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in some)


def test_with_group_norm_the_weights_are_those_of_the_unchanged_world(unchanged: TinyRun, resized: TinyRun) -> None:
    expected, found = load_file(unchanged.paths.model), load_file(resized.paths.model)
    assert difference(expected, found) <= 1e-6
    begun_with = build_model(unchanged.job.model, num_classes=len(CLASSES), seed=unchanged.job.seed).state_dict()
    assert difference(expected, begun_with) > 0.01, "it learns nothing"


def test_accuracies_are_told_once_for_each_epoch(unchanged: TinyRun, resized: TinyRun) -> None:
    assert resized.evaluations().keys() == unchanged.evaluations().keys()


def test_with_the_batch_of_a_worker_kept_no_sample_is_lost_or_repeated_and_the_order_stays(
    nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    phases = [
        {"epochs": 3, "resolution": 12, "batch_per_worker": 7},
        {"epochs": 2, "resolution": 16, "batch_per_worker": 5},
    ]
    run = TinyRun(tmp_path, make_job(tiny_data, workers={"min": 1, "max": 4}, phases=phases))
    train_in_worlds(nursery, run, stop_at_turns=(6, 4, 5))
    batches = global_batches(read_ledger(run.attempts))
    for row in run.plan.rows:
        trained = [sample for place, batch in sorted(batches.items()) if place.epoch == row.epoch for sample in batch]
        assert trained == list(order(run.plan.seed, row.epoch, NUM_SAMPLES)[: len(trained)])
        assert NUM_SAMPLES - len(trained) < max(WORLDS) * row.batch_per_worker
    sizes = {len(batch) for batch in batches.values()}
    assert sizes >= {7 * workers for workers in set(WORLDS)}

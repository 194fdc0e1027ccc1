"""What a run has trained, sample by sample, after any number of stops."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from launcher.coordinator import Done, Stop
from launcher.plan import Position
from launcher.sample_order import order
from tests.faults.attempts import StopRequest, Traces
from tests.faults.kill_engine import Ending
from tests.faults.ledger import Step, faults, global_batches, read_ledger
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import TinyRun, make_job

STOPS = 20
EIGHT_EPOCHS = [
    {"epochs": 3, "resolution": 12, "global_batch": 18},
    {"epochs": 3, "resolution": 16, "global_batch": 12, "warmup_epochs": 1},
    {"epochs": 2, "resolution": 24, "global_batch": 12},
]


def test_a_run_stopped_20_times_trains_every_sample_once_per_epoch_but_for_the_declared_tail(
    nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    job = make_job(tiny_data, workers=2, phases=EIGHT_EPOCHS)
    whole, stopped = TinyRun(tmp_path / "whole", job), TinyRun(tmp_path / "stopped", job)
    assert nursery.run(whole.attempt()).end == Done()

    draw, places = random.Random(0), []
    for _ in range(STOPS):
        stop = StopRequest(turn=draw.randint(2, 4), asker=draw.randrange(2))
        outcome = nursery.run(stopped.attempt(stop=stop))
        assert isinstance(outcome.end, Stop), outcome
        places.append(outcome.end.position)
    last = nursery.run(stopped.attempt())

    assert last.end == Done(), last.error
    assert places == sorted(set(places))
    assert sum(place.samples_done > 0 for place in places) > STOPS / 2, "most stops are to lie within an epoch"
    assert faults(read_ledger(stopped.attempts), stopped.plan) == []
    assert Ending.of(stopped).differences(Ending.of(whole)) == []


def test_global_batches_follow_the_epochs_order_whatever_rank_trains_them(
    nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    run = TinyRun(tmp_path, make_job(tiny_data, workers=3))
    assert nursery.run(run.attempt()).end == Done()
    ledger = read_ledger(run.attempts)
    expected = {}
    for row in run.plan.rows:
        samples = order(run.plan.seed, row.epoch, run.plan.num_samples)
        for start in range(0, row.num_samples, row.global_batch):
            expected[Position(row.epoch, start)] = tuple(samples[start : start + row.global_batch])
    assert global_batches(ledger) == expected
    assert {step.learning_rate for step in ledger if step.position == Position(1, 36)} == {
        run.plan.learning_rate(Position(1, 36))
    }


def attempt(folder: Path, start: Position, *steps: str) -> Traces:
    """The traces of an attempt of one rank."""
    folder.mkdir()
    traces = Traces(folder)
    traces.begin(start, world_size=1)
    traces.ledger(0).write_text("".join(f"{step}\n" for step in steps))
    return traces


def test_what_a_later_attempt_trains_again_is_void(tmp_path: Path) -> None:
    first = attempt(tmp_path / "1", Position(0), "[0.1, [[0, 0, [3], 7]]]", "[0.1, [[0, 1, [5], 8]]]")
    second = attempt(tmp_path / "2", Position(0, 1), "[0.1, [[0, 1, [4], 9]]]")
    assert read_ledger([first, second]) == [
        Step(Position(0, 0), 0, (3,), (7,), 0.1),
        Step(Position(0, 1), 0, (4,), (9,), 0.1),
    ]
    killed_at_once = Traces(tmp_path / "3")
    assert read_ledger([first, killed_at_once]) == read_ledger([first])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([*range(90)], []),
        ([*range(89)], ["epoch 0: 0 samples repeated, 11 missing of which 10 are the declared tail"]),
        ([*range(90), 5], ["epoch 0: 1 samples repeated, 10 missing of which 10 are the declared tail"]),
        ([*range(91)], ["epoch 0: 0 samples repeated, 9 missing of which 10 are the declared tail"]),
    ],
)
def test_lost_and_repeated_samples_are_told(samples: list[int], expected: list[str], tmp_path: Path) -> None:
    run = TinyRun(tmp_path, make_job(tmp_path, workers=1, phases=EIGHT_EPOCHS[:1]))
    rest = [Step(Position(epoch), 0, tuple(range(90)), (), 0.1) for epoch in (1, 2)]
    assert faults([Step(Position(0), 0, tuple(samples), (), 0.1), *rest], run.plan) == expected

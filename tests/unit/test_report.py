"""What a run came to, read off its events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from launcher.event_log import EventLog, read_events
from launcher.events import AttemptStarted, EpochTrained, Evaluated, Event, RunFinished, TransitionMade, WorkersReady
from launcher.report import summarise

STARTED = AttemptStarted("toy", "single", 2, "f00", 0, 0, None, ())
READY = WorkersReady(2, "cpu", "fp32", {})
FINISHED = RunFinished("model.safetensors", 1.0)


def trained(
    epoch: int, *, phase: int = 0, seconds: float = 10.0, samples: int = 1000, resolution: int = 16
) -> EpochTrained:
    return EpochTrained(
        epoch=epoch,
        phase=phase,
        phase_name=f"phase {phase}",
        resolution=resolution,
        global_batch=100,
        samples=samples,
        seconds=seconds,
        images_per_s=samples / seconds,
        data_wait_s=seconds / 4,
        loss=1.0,
        learning_rate=0.1,
    )


def evaluated(epoch: int, top1: float, *, moment: str = "epoch_end", seconds: float = 2.0) -> Evaluated:
    return Evaluated(epoch, 0, 16, moment, 100, seconds, top1, top1 + 0.1, 1.0)


def transition(epoch: int, seconds: float = 0.5) -> TransitionMade:
    return TransitionMade(epoch, 1, "phase 1", 16, 24, 100, 100, 0.1, seconds, "none", 0.0, 0.3, 0.4)


def timed(*events: tuple[float, Event]) -> list[Mapping[str, Any]]:
    """Events at seconds after noon, as they read back from events.jsonl."""
    noon = datetime(2026, 3, 14, 12, tzinfo=timezone.utc)
    return [
        json.loads(json.dumps({"time": (noon + timedelta(seconds=second)).isoformat(), **event.to_json()}))
        for second, event in events
    ]


WHOLE = timed(
    (0, STARTED),
    (3, READY),
    (13, trained(0)),
    (15, evaluated(0, 0.2)),
    (25, trained(1)),
    (27, evaluated(1, 0.3)),
    (28, transition(2)),
    (30, evaluated(2, 0.4, moment="after_transition")),
    (50, trained(2, phase=1, seconds=20, resolution=24)),
    (52, evaluated(2, 0.6)),
    (53, FINISHED),
)


def test_phases_sum_up_their_epochs_and_are_judged_by_their_last_evaluation() -> None:
    first, second = summarise(WHOLE).phases
    assert (first.phase, first.name, first.epochs, first.resolutions) == (0, "phase 0", 2, (16,))
    assert (first.samples, first.train_s, first.images_per_s, first.data_wait_share) == (2000, 20, 100, 0.25)
    assert (first.top1, first.top5) == (0.3, 0.4)
    assert (second.epochs, second.resolutions, second.images_per_s, second.top1) == (1, (24,), 50, 0.6)


def test_totals_of_one_attempt() -> None:
    summary = summarise(WHOLE)
    assert (summary.attempts, summary.total_s, summary.startup_s) == (1, 53, 3)
    assert (summary.train_s, summary.evaluation_s, summary.transition_s) == (40, 8, 0.5)
    assert (summary.top1, summary.top5) == (0.6, 0.7)


def test_attempts_add_up_and_the_time_between_them_does_not_count() -> None:
    later = timed((1000, replace(STARTED, epoch=2)), (1004, READY), (1030, trained(2, phase=1, seconds=26)))
    summary = summarise([*WHOLE[:6], *later])
    assert summary.attempts == 2
    assert summary.total_s == 27 + 30
    assert summary.startup_s == 3 + 4
    assert [phase.epochs for phase in summary.phases] == [2, 1]


def test_an_epoch_trained_again_after_a_kill_counts_once_as_trained_last() -> None:
    killed = WHOLE[:5]  # Epoch 1 was trained, but the kill came before its checkpoint.
    again = timed((100, STARTED), (101, READY), (113, trained(1, seconds=8)), (115, evaluated(1, 0.35)))
    (phase,) = summarise([*killed, *again]).phases
    assert (phase.epochs, phase.samples, phase.train_s) == (2, 2000, 18)
    assert phase.top1 == 0.35


def test_a_transition_made_again_counts_once() -> None:
    again = timed((100, STARTED), (101, transition(2, seconds=0.7)))
    assert summarise([*WHOLE, *again]).transition_s == 0.7


def test_a_phase_that_was_never_evaluated_has_no_accuracy() -> None:
    summary = summarise(event for event in WHOLE if event["event"] != "evaluated")
    assert [(phase.top1, phase.top5) for phase in summary.phases] == [(None, None), (None, None)]
    assert (summary.top1, summary.top5, summary.evaluation_s) == (None, None, 0)


def test_an_accuracy_after_a_transition_is_not_the_next_phases_own() -> None:
    summary = summarise(WHOLE[:9])
    assert summary.phases[1].top1 is None
    assert summary.top1 == 0.3


@pytest.mark.parametrize("events", [[], WHOLE[:1], WHOLE[:2]], ids=["none", "started", "ready"])
def test_a_run_that_trained_nothing_has_a_summary_too(events: list[Mapping[str, Any]]) -> None:
    summary = summarise(events)
    assert (summary.phases, summary.train_s, summary.top1) == ((), 0, None)
    json.dumps(summary.to_json(), allow_nan=False)


def test_a_ramps_sizes_are_listed_in_the_order_of_training() -> None:
    events = timed(
        (0, STARTED), *((epoch, trained(epoch, resolution=size)) for epoch, size in enumerate((16, 24, 24, 32)))
    )
    (phase,) = summarise(events).phases
    assert phase.resolutions == (16, 24, 32)


def test_an_epoch_that_took_no_time_is_not_divided_by() -> None:
    (phase,) = summarise(timed((0, STARTED), (0, replace(trained(0), seconds=0.0)))).phases
    assert (phase.images_per_s, phase.data_wait_share) == (0, 0)


def test_the_log_gives_back_what_the_summary_needs(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for event in (STARTED, READY, trained(0), evaluated(0, 0.2), FINISHED):
        log.append(event.to_json())
    log.close()
    summary = summarise(read_events(tmp_path / "events.jsonl"))
    assert (summary.attempts, summary.train_s, summary.top1) == (1, 10, 0.2)


def test_events_are_named_after_their_class() -> None:
    assert [event.name for event in (STARTED, READY, FINISHED)] == ["attempt_started", "workers_ready", "run_finished"]
    assert STARTED.to_json()["event"] == "attempt_started"

"""events -> what a run came to: a row per phase, and the totals. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class PhaseResult:
    """A phase's epochs together; its accuracy is that of its last evaluation, at its own size."""

    phase: int
    name: str
    epochs: int
    resolutions: tuple[int, ...]
    global_batch: int
    samples: int
    train_s: float
    images_per_s: float
    data_wait_share: float
    """Share of the training time in which rank 0 waited for data, 0..1."""
    top1: float | None
    top5: float | None


@dataclass(frozen=True)
class Summary:
    """All attempts of a run together. An epoch that was trained again after a kill counts once, as trained last."""

    phases: tuple[PhaseResult, ...]
    attempts: int
    train_s: float
    evaluation_s: float
    transition_s: float
    startup_s: float
    """From the driver's start to the workers' readiness."""
    staged_bytes: int
    """Data files copied to nodes' disks, or found there and checked (data.stage): summed over nodes."""
    staging_s: float
    """Of the workers that did it, one per node and file; others waited meanwhile."""
    total_s: float
    """Over the attempts, each from the driver's start to its last event; bringing up the workers is part of it."""
    top1: float | None
    top5: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class ReportError(ValueError):
    """Events that no run has reported."""


def summarise(events: Iterable[Mapping[str, Any]]) -> Summary:
    """Read a run's events, oldest first, in the form in which events.jsonl holds them. Raises ReportError."""
    try:
        return _summarise(events)
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ReportError(f"events.jsonl holds what no run has written ({error}); move it away") from error


def _summarise(events: Iterable[Mapping[str, Any]]) -> Summary:
    trained: dict[int, Mapping[str, Any]] = {}
    evaluated: dict[int, Mapping[str, Any]] = {}
    transition_s: dict[int, float] = {}
    evaluation_s = startup_s = staging_s = 0.0
    staged_bytes = 0
    attempts: list[tuple[float, float]] = []
    for event in events:
        kind = event["event"]
        if kind == "attempt_started" or not attempts:
            attempts.append((_seconds(event), _seconds(event)))
        attempts[-1] = (attempts[-1][0], _seconds(event))
        if kind == "workers_ready":
            startup_s += attempts[-1][1] - attempts[-1][0]
        elif kind == "data_staged":
            staged_bytes += event["num_bytes"]
            staging_s += event["seconds"]
        if kind == "epoch_trained":
            trained[event["epoch"]] = event
        elif kind == "evaluated":
            evaluation_s += event["seconds"]
            if event["moment"] == "epoch_end":
                evaluated[event["epoch"]] = event
        elif kind == "transition_made":
            transition_s[event["epoch"]] = event["seconds"]
    phases = sorted({event["phase"] for event in trained.values()})
    results = tuple(_phase_result(phase, trained, evaluated) for phase in phases)
    last = evaluated[max(evaluated)] if evaluated else None
    return Summary(
        phases=results,
        attempts=len(attempts),
        train_s=sum(result.train_s for result in results),
        evaluation_s=evaluation_s,
        transition_s=sum(transition_s.values()),
        startup_s=startup_s,
        staged_bytes=staged_bytes,
        staging_s=staging_s,
        total_s=sum(last - first for first, last in attempts),
        top1=last["top1"] if last else None,
        top5=last["top5"] if last else None,
    )


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _phase_result(
    phase: int, trained: Mapping[int, Mapping[str, Any]], evaluated: Mapping[int, Mapping[str, Any]]
) -> PhaseResult:
    epochs = [event for _, event in sorted(trained.items()) if event["phase"] == phase]
    judged = [evaluated[event["epoch"]] for event in epochs if event["epoch"] in evaluated]
    train_s = sum(event["seconds"] for event in epochs)
    samples = sum(event["samples"] for event in epochs)
    return PhaseResult(
        phase=phase,
        name=epochs[0]["phase_name"],
        epochs=len(epochs),
        resolutions=tuple(dict.fromkeys(event["resolution"] for event in epochs)),
        global_batch=epochs[-1]["global_batch"],
        samples=samples,
        train_s=train_s,
        images_per_s=samples / train_s if train_s else 0.0,
        data_wait_share=sum(event["data_wait_s"] for event in epochs) / train_s if train_s else 0.0,
        top1=judged[-1]["top1"] if judged else None,
        top5=judged[-1]["top5"] if judged else None,
    )

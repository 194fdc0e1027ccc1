"""What a run's final weights were trained on, by its workers' ledgers, against the plans of its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.plan import EpochSpec, Plan, Position
from launcher.sample_order import order
from tests.faults.ledger import Step, read_ledger
from tests.slurm.traced_work import WorkerTraces


@dataclass(frozen=True)
class Evidence:
    """Of a run that is over."""

    ledger: list[Step]
    lost: int
    """Samples that an epoch should have trained and did not, over all epochs."""
    repeated: int
    astray: tuple[str, ...]
    """A sentence for each epoch out of order, and for a step whose LR is not its plan's."""


@dataclass(frozen=True)
class _Begun:
    """Where an attempt began, and by which plan it went."""

    start: Position
    plan: Plan


def gather(attempts: Sequence[WorkerTraces]) -> Evidence:
    """Of attempts in their order, of any numbers of workers. The last one came to the end."""
    ledger = read_ledger(attempts)
    begun = [_Begun(start, attempt.plan) for attempt in attempts if (start := _start(attempt)) is not None]
    plan = begun[-1].plan
    lost = repeated = 0
    astray = []
    for row in plan.rows:
        trained = [number for step in ledger if step.position.epoch == row.epoch for number in step.samples]
        whole_order = [int(number) for number in order(plan.seed, row.epoch, plan.num_samples)]
        expected = whole_order[: plan.num_samples - _last_row(begun, row.epoch).dropped_samples]
        lost += len(set(expected) - set(trained))
        repeated += len(trained) - len(set(trained))
        if trained != expected:
            astray.append(f"epoch {row.epoch}: not the samples of its plan in their order")
    return Evidence(ledger, lost, repeated, (*astray, *_wrong_rates(ledger, begun)))


def _start(attempt: WorkerTraces) -> Position | None:
    began = attempt.start()
    return began[0] if began else None


def _last_row(begun: Sequence[_Begun], epoch: int) -> EpochSpec:
    """The epoch in the plan by which it came to its end."""
    for attempt in reversed(begun):
        row, end = attempt.plan.rows[epoch], Position(epoch + 1)
        # One that began right there with an offset dropped what was left.
        if attempt.start < end or (attempt.start == end and row.offset):
            return row
    raise AssertionError(f"no attempt trained epoch {epoch}")


def _wrong_rates(ledger: Iterable[Step], begun: Sequence[_Begun]) -> list[str]:
    for step in ledger:
        plan = [attempt.plan for attempt in begun if attempt.start <= step.position][-1]
        expected = plan.learning_rate(step.position)
        if step.learning_rate != expected:
            return [f"{step.position}: learning rate {step.learning_rate} instead of {expected}"]
    return []

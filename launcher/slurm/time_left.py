"""Whether a phase will end within the time that Slurm has left for the job."""

from __future__ import annotations

import os
from dataclasses import dataclass

from launcher.events import Event
from launcher.plan import Plan, Position

VARIABLE = "RESOLUTE_JOB_ENDS"
"""By this environment variable an agent tells its driver when Slurm will end the job, in seconds since 1970."""


@dataclass(frozen=True)
class Measured:
    """An epoch of the plan, and the seconds that its training took."""

    epoch: int
    seconds: float


@dataclass(frozen=True)
class PhaseMayNotFit(Event):
    """The job's time will be up before the phase is trained: it will be stopped within it, and go on from there."""

    phase: int
    phase_name: str
    needs_s: float
    left_s: float

    def __str__(self) -> str:
        return (
            f"phase {self.phase} ({self.phase_name}) needs about {_duration(self.needs_s)}, and the job has "
            f"{_duration(self.left_s)} left: it will be stopped within the phase, and go on from there"
        )


def job_ends_at() -> float | None:
    """When Slurm will end the job that this process drives, in seconds since 1970; None if nobody has told."""
    told = os.environ.get(VARIABLE)
    return float(told) if told else None


def may_not_fit(plan: Plan, start: Position, measured: Measured, *, left_s: float) -> PhaseMayNotFit | None:
    """What to say before training goes on from `start`; None if there is time for what is left of its phase.

    Other sizes take as much longer as the plan says that they cost.
    """
    if start == plan.end:
        return None
    first = plan.rows[start.epoch]
    rows = [row for row in plan.rows[start.epoch :] if row.phase == first.phase]
    cost = sum(row.relative_cost for row in rows) - first.relative_cost * start.samples_done / plan.num_samples
    needs_s = measured.seconds / plan.rows[measured.epoch].relative_cost * cost
    return PhaseMayNotFit(first.phase, first.phase_name, needs_s, max(0.0, left_s)) if needs_s > left_s else None


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"

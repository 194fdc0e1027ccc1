"""Whether a stop fits into the time that a cluster grants a preempted job. Pure."""

from __future__ import annotations

from launcher.coordinator import Cadence, lease_seconds

_REACTION_S = 1.0
"""From Slurm's signal to the workers' next question."""
_WRITTEN_PER_S = 200e6
"""Bytes: what a busy file system takes from one writer, checksums and flushes among it. An assumption."""
_PASSED_ON_S = 0.5
"""From the last byte written to the request to requeue."""


def stop_seconds(cadence: Cadence, *, checkpoint_bytes: int) -> float:
    """From Slurm's signal to a durable checkpoint: a lease, and a save."""
    save_s = checkpoint_bytes / _WRITTEN_PER_S + _PASSED_ON_S
    return _REACTION_S + lease_seconds(cadence, save_s) + save_s


def warn_of_grace(cadence: Cadence, *, checkpoint_bytes: int) -> str | None:
    """A sentence for a grace that is shorter than a stop takes; None if it is not, or if it is unknown."""
    stop_s = stop_seconds(cadence, checkpoint_bytes=checkpoint_bytes)
    if cadence.grace_s is None or stop_s <= cadence.grace_s:
        return None
    return (
        f"grace_s: {cadence.grace_s:g} s are less than the {stop_s:.1f} s or so that a lease and a save of "
        f"{checkpoint_bytes / 1e6:,.0f} MB take: a preemption may cost all that was trained since the last checkpoint; "
        "set checkpoint.every_minutes, or ask for a longer GraceTime"
    )

"""The largest batch that trains: how it is looked for, and what becomes of a job that leaves it open. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from launcher.config import JobConfig
from launcher.schedules import resolution_at

MULTIPLE = 8
"""Batches are multiples of it, which GPUs compute fastest with."""
MARGIN = 0.1
"""Share of the largest batch that is left free: memory fragments over hours, and batches' shapes differ."""
BASE_ON_CPU = 64
"""What a CPU takes at once at the largest size, memory permitting: it computes no faster with more."""
_OUT_OF_MEMORY_TEXTS = ("CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")


class BatchSizeError(ValueError):
    """No batch was found."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a step failed for want of memory: torch's own error, or what libraries below it say."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def largest_batch(trains: Callable[[int], bool], *, at_most: int) -> int:
    """The largest multiple of MULTIPLE up to `at_most` that `trains`, less the margin if memory was what ended it.

    Doubles until it does not train, then bisects. 0 if not even MULTIPLE does. `at_most` itself, whatever it is
    a multiple of, if it is no more than MULTIPLE or all up to it trains.
    """
    good, bad = 0, None
    batch = min(MULTIPLE, at_most)
    while bad is None and good < at_most:
        if trains(batch):
            good, batch = batch, min(2 * batch, at_most)
        else:
            bad = batch
    if bad is None:
        return good
    while (middle := (good + bad) // 2 // MULTIPLE * MULTIPLE) > good:
        if trains(middle):
            good = middle
        else:
            bad = middle
    return max(good and min(good, MULTIPLE), int(good * (1 - MARGIN)) // MULTIPLE * MULTIPLE)


def batch_by_area(resolution: int, *, base: int, at: int) -> int:
    """As many samples as take the memory of `base` samples of `at` px: the area rule, in multiples of MULTIPLE."""
    return max(1, base * at**2 // resolution**2 // MULTIPLE * MULTIPLE) if base >= MULTIPLE else base


def open_phases(job: JobConfig) -> dict[int, int]:
    """The phases whose batch is to be found, with the largest size that each trains at."""
    return {
        index: max(resolution_at(phase.resolution, epoch, phase.epochs) for epoch in range(phase.epochs))
        for index, phase in enumerate(job.phases)
        if phase.batch_per_worker == "auto"
    }


def most_useful(job: JobConfig, phase: int, *, num_samples: int) -> int:
    """The batch beyond which a worker has nothing to gain: its share of the global batch, or of all samples."""
    global_batch = job.phases[phase].global_batch
    if global_batch is not None:
        return max(1, global_batch // job.run.least_workers)
    return max(1, num_samples // job.run.most_workers)


def with_batches(job: JobConfig, batches: Mapping[int, int]) -> JobConfig:
    """The job with these phases' batches set."""
    phases = tuple(
        phase.model_copy(update={"batch_per_worker": batches[index]}) if index in batches else phase
        for index, phase in enumerate(job.phases)
    )
    return job.model_copy(update={"phases": phases})

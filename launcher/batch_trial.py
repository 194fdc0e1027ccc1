"""Finds the batch of a job's open phases by real training steps: a process of its own, so that its memory goes with it.

Reads a Request from its standard input and writes its Findings as the last line of its standard output, both JSON.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ffcv_datasets.batches import BatchStream
from ffcv_datasets.crop import View
from launcher.augmentation import Augmenter
from launcher.batch_cache import BatchCache
from launcher.batch_search import Finding, Request
from launcher.batch_size import (
    BASE_ON_CPU,
    MULTIPLE,
    BatchSizeError,
    batch_by_area,
    is_out_of_memory,
    largest_batch,
    most_useful,
    open_phases,
)
from launcher.config import JobConfig
from launcher.device_batches import transfer_to
from launcher.model_input import Pixels, choose_precision
from launcher.models import build_model, build_optimizer, lay_out
from launcher.plan import EpochSpec
from launcher.planning import build_plan
from launcher.tasks.classification import Classification
from launcher.trainer import Trainer

_SMALL, _LARGE = MULTIPLE, 5 * MULTIPLE
"""Batches whose peaks tell what a sample takes on a CPU."""
_MIDDLE_GREY = Pixels((127.5,) * 3, (64.0,) * 3)


class Trial:
    """A job's model on a device, to take steps with."""

    def __init__(self, job: JobConfig, *, num_classes: int, device: torch.device, model: nn.Module | None = None):
        self._rows = _largest_rows(job)
        self._accumulates = [phase.global_batch is not None for phase in job.phases]
        self._device = device
        model = lay_out(model or build_model(job.model, num_classes=num_classes, seed=job.seed), device)
        self.trainer = Trainer(
            plan=build_plan(_with_least_batches(job), num_samples=MULTIPLE, world_size=1),
            rank=0,
            device=device,
            precision=choose_precision(job.run.precision, device),
            model=model,
            optimizer=build_optimizer(job.optimizer, model),
            ema=job.ema,
            task=Classification(
                num_classes=num_classes, loss=job.loss, flip_tta=job.evaluation.flip_tta, device=device
            ),
            augmenter=Augmenter(
                job.augmentation, seed=job.seed, num_classes=num_classes, mean_colour=_MIDDLE_GREY.channel_mean
            ),
            pixels=_MIDDLE_GREY,
            train_data=_NoData(),
            val_data=None,
            transfer=transfer_to(device),
            evaluation=job.evaluation,
            clip_norm=job.optimizer.clip_norm,
        )

    def step(self, phase: int, batch: int) -> None:
        """Forward, backward and an update of the weights at the phase's largest size. Raises what torch raises."""
        row = dataclasses.replace(
            self._rows[phase],
            batch_per_worker=batch,
            accumulate=2 if self._accumulates[phase] else 1,  # gradients lie there beside the second batch
            global_batch=batch,
        )
        self.trainer.try_step(row)

    def trains(self, phase: int, batch: int) -> bool:
        """Whether a step's memory suffices."""
        try:
            self.step(phase, batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        else:
            fits = True
        # Outside of `except`, whose error holds the frames, and with them the tensors.
        self.trainer.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return fits


class _NoData:
    """Steps on drawn pixels read none."""

    num_samples = 0
    batches_ahead = 0

    def batches(
        self, samples: Sequence[NDArray[np.int64]], view: View, *, after: BatchStream | None = None
    ) -> BatchStream:
        raise AssertionError("a trial reads no data")

    def close(self) -> None: ...


def _with_least_batches(job: JobConfig) -> JobConfig:
    least = {"batch_per_worker": MULTIPLE, "global_batch": None}
    return job.model_copy(update={"phases": tuple(phase.model_copy(update=least) for phase in job.phases)})


def _largest_rows(job: JobConfig) -> list[EpochSpec]:
    """For each phase the epoch of its largest size."""
    rows = build_plan(_with_least_batches(job), num_samples=MULTIPLE, world_size=1).rows
    by_phase = [[row for row in rows if row.phase == phase] for phase in range(len(job.phases))]
    return [max(of_phase, key=lambda row: row.resolution) for of_phase in by_phase]


def find(request: Request, cache: BatchCache) -> list[Finding]:
    """The batches of the job's open phases: the least over the kinds of GPUs that are seen, or those for a CPU."""
    torch.set_num_threads(request.job.run.threads_per_worker or len(os.sched_getaffinity(0)))
    if not torch.cuda.is_available():
        return _find_on_cpu(request, cache)
    by_device = [_find_on_gpu(request, cache, device) for device in _kinds_of_gpus()]
    return [min(found, key=lambda finding: finding.batch) for found in zip(*by_device, strict=True)]


def _kinds_of_gpus() -> list[torch.device]:
    """The first GPU of each name and memory."""
    kinds: dict[tuple[str, int], torch.device] = {}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        kinds.setdefault((properties.name, properties.total_memory), torch.device("cuda", index))
    return list(kinds.values())


def _find_on_gpu(request: Request, cache: BatchCache, device: torch.device) -> list[Finding]:
    torch.cuda.set_device(device)
    properties = torch.cuda.get_device_properties(device)
    trial: Trial | None = None
    findings = []
    for phase, resolution in open_phases(request.job).items():
        at_most = most_useful(request.job, phase, num_samples=request.num_samples)
        key = request.key(phase, device=properties.name, memory_bytes=properties.total_memory, at_most=at_most)
        known = None if request.again else cache.look_up(key, figures=("batch", "memory_bytes"))
        found = known
        if found is None:
            trial = trial or Trial(request.job, num_classes=request.num_classes, device=device)
            batch = search(trial, phase, at_most=at_most)
            torch.cuda.reset_peak_memory_stats(device)
            trial.step(phase, batch)
            found = {"batch": batch, "memory_bytes": torch.cuda.max_memory_reserved(device)}
            cache.keep(key, found)
            trial.trainer.optimizer.zero_grad(set_to_none=True)
        earlier = known is not None
        findings.append(
            Finding(phase, resolution, found["batch"], found["memory_bytes"], properties.name, earlier=earlier)
        )
    return findings


def search(trial: Trial, phase: int, *, at_most: int) -> int:
    """The largest batch that the phase trains with. Raises BatchSizeError if there is none."""
    batch = largest_batch(lambda size: trial.trains(phase, size), at_most=at_most)
    if batch == 0:
        raise BatchSizeError(
            f"phases[{phase}].batch_per_worker: not even {min(MULTIPLE, at_most)} samples fit into the memory; "
            "use a smaller model or size"
        )
    return batch


def _find_on_cpu(request: Request, cache: BatchCache) -> list[Finding]:
    """By the area rule from what the largest size takes: a process that takes too much is killed, and tells nothing.

    What a sample takes is kept; how many of them fit is reckoned anew, as another day has another budget.
    """
    sizes = open_phases(request.job)
    largest = max(sizes, key=lambda phase: sizes[phase])
    key = request.key(largest, device="cpu", memory_bytes=None, at_most=BASE_ON_CPU)
    known = None if request.again else cache.look_up(key, figures=("bytes_per_sample", "other_bytes"))
    found = known
    if found is None:
        trial = Trial(request.job, num_classes=request.num_classes, device=torch.device("cpu"))
        found = _measure(trial, largest)
        cache.keep(key, found)
    base = _affordable(found, request.budget_bytes)
    if base < 1:
        raise BatchSizeError(
            f"phases[{largest}].batch_per_worker: a sample of {sizes[largest]} px takes "
            f"{found['bytes_per_sample'] / 1e6:,.0f} MB beside {found['other_bytes'] / 1e6:,.0f} MB, of "
            f"{request.budget_bytes / 1e6:,.0f} MB for each worker; use fewer workers, a smaller model or size"
        )
    memory_bytes = found["other_bytes"] + base * found["bytes_per_sample"]
    findings = []
    for phase, resolution in sizes.items():
        by_area = batch_by_area(resolution, base=base, at=sizes[largest])
        batch = min(by_area, most_useful(request.job, phase, num_samples=request.num_samples))
        findings.append(Finding(phase, resolution, batch, memory_bytes, "cpu", earlier=known is not None))
    return findings


def _affordable(found: Mapping[str, int], budget_bytes: int) -> int:
    """Samples of the largest size that fit into the budget, up to BASE_ON_CPU; below 1 if none does."""
    base = min(BASE_ON_CPU, (budget_bytes - found["other_bytes"]) // found["bytes_per_sample"])
    return base // MULTIPLE * MULTIPLE or base


def _measure(trial: Trial, phase: int) -> dict[str, int]:
    """Bytes that a sample takes, and that all else takes, by the process's peaks at two batches."""
    peaks = []
    for batch in (_SMALL, _LARGE):
        trial.step(phase, batch)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    per_sample = max(1, (peaks[1] - peaks[0]) // (_LARGE - _SMALL))
    return {"bytes_per_sample": per_sample, "other_bytes": peaks[1] - _LARGE * per_sample}


def main() -> None:
    answer: dict[str, Any]
    try:
        request = Request.from_json(json.load(sys.stdin))
        answer = {"findings": [dataclasses.asdict(finding) for finding in find(request, BatchCache.of_user())]}
    except BatchSizeError as error:
        answer = {"error": str(error)}
    print()  # whatever a library may have written stands above
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

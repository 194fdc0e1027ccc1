"""Which samples were really trained, from which pixels and at which LR, written down where batches are consumed.

The product knows nothing of it: a rank's process wraps the product's classes. A step is written after the optimizer has
made it. What a later attempt trains again is void: an entry counts if every later attempt began after its place.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.plan import Plan, Position
from tests.faults.attempts import Traces


@dataclass(frozen=True, order=True)
class Step:
    """What one rank trained in one step."""

    position: Position
    """Where the step's global batch begins."""
    rank: int
    samples: tuple[int, ...]
    pixels: tuple[int, ...]
    """CRC-32 of each batch as it came out of the decoder; several where gradients are accumulated."""
    learning_rate: float


def keep_ledger(path: Path) -> None:
    """From now on write down, at `path`, every step that this process trains."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from launcher.device_batches import DeviceBatch
    from launcher.training_feed import TrainingFeed

    hand_out = TrainingFeed.next
    consumed: list[tuple[int, int, list[int], int]] = []

    def watched(self: TrainingFeed, spec: Any, start: int, *part: int) -> DeviceBatch:
        batch = hand_out(self, spec, start, *part)
        consumed.append((spec.epoch, start, batch.samples.tolist(), zlib.crc32(batch.pixels.numpy().tobytes())))
        return batch

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def trained(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not consumed:  # a step that is only tried
            return
        os.write(file, json.dumps([optimizer.param_groups[0]["lr"], consumed]).encode() + b"\n")
        consumed.clear()

    TrainingFeed.next = watched  # type: ignore[method-assign,assignment]
    register_optimizer_step_post_hook(trained)


def read_ledger(attempts: Sequence[Traces]) -> list[Step]:
    """What a run's attempts, in their order, have trained for good: sorted by position, then by rank."""
    counted: list[Step] = []
    for traces in attempts:
        began = traces.start()
        if began is None:
            continue
        start, world_size = began
        counted = [step for step in counted if step.position < start]
        counted += [step for rank in range(world_size) for step in _steps(traces.ledger(rank), rank)]
    return sorted(counted)


def _steps(path: Path, rank: int) -> Iterable[Step]:
    for line in path.read_text().splitlines() if path.exists() else ():
        learning_rate, batches = json.loads(line)
        places = {Position(epoch, start) for epoch, start, _, _ in batches}
        assert len(places) == 1, f"one step took batches of several places: {batches}"
        samples = tuple(number for _, _, numbers, _ in batches for number in numbers)
        yield Step(places.pop(), rank, samples, tuple(crc for *_, crc in batches), learning_rate)


def global_batches(steps: Iterable[Step]) -> dict[Position, tuple[int, ...]]:
    """Each step's samples over all ranks, in the order of ranks."""
    batches: dict[Position, tuple[int, ...]] = {}
    for step in sorted(steps):
        batches[step.position] = batches.get(step.position, ()) + step.samples
    return batches


def faults(steps: Iterable[Step], plan: Plan) -> list[str]:
    """Samples lost or repeated: a sentence for each epoch that has not trained every sample once, but for its tail."""
    trained: dict[int, Counter[int]] = {row.epoch: Counter() for row in plan.rows}
    for step in steps:
        trained[step.position.epoch].update(step.samples)
    sentences = []
    for row in plan.rows:
        counts = trained[row.epoch]
        repeated = sorted(sample for sample, times in counts.items() if times > 1)
        missing = plan.num_samples - len(counts)
        if repeated or missing != row.dropped_samples:
            sentences.append(
                f"epoch {row.epoch}: {len(repeated)} samples repeated, {missing} missing of which "
                f"{row.dropped_samples} are the declared tail"
            )
    return sentences

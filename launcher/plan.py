"""The plan: a table with one row per epoch, and what a place between two rows is answered from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from launcher.config import LearningRate, Phase, Trainable
from launcher.schedules import (
    learning_rate_at,
    size_increases,
)

_INDECISIVE = ("phase_name", "relative_cost", "steps", "dropped_samples", "offset")
"""What a row only tells, or what follows from the rest and from where another number of workers stopped."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a run: samples of `epoch` already trained, over all workers.

    It depends neither on the world size nor on the batch. A finished epoch is written as the next one's start.
    """

    epoch: int
    samples_done: int = 0


BEGINNING = Position(0)


@dataclass(frozen=True)
class EpochSpec:
    """One epoch: a row of the plan."""

    epoch: int
    phase: int
    phase_name: str
    resolution: int
    batch_per_worker: int
    """Samples that a worker's model sees at once."""
    accumulate: int
    """Such batches a worker takes for one step."""
    global_batch: int
    steps: int
    dropped_samples: int
    lr_start: float
    lr_end: float
    """What the LR comes to at the epoch's end, before it jumps if it does."""
    relative_cost: float
    crop_scale: tuple[float, float]
    centre_crop: float | None = None
    """Share of the shorter side in a centre crop; None: random crops."""
    trainable: Trainable = "all"
    offset: int = 0
    """Samples before the first whole global batch: another global batch was used until then."""
    recalibration_batches: int = 0
    """Global batches from which norm statistics are estimated anew before the epoch, if it is come to by training."""
    norm_frozen: bool = False
    """Whether norm statistics stay as they are, and are normalised by, throughout the epoch."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    # As in Strengths:
    policy: Literal["rand_augment", "trivial_augment"] | None = None
    magnitude: float | None = None
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    dropout: float | None = None
    stochastic_depth: float | None = None

    @property
    def num_samples(self) -> int:
        """Samples trained in this epoch: whole global batches after the offset, the dropped tail not among them."""
        return self.offset + self.steps * self.global_batch

    def same_settings(self, other: EpochSpec) -> bool:
        """Whether workers can go from one epoch to the other without a transition."""
        settings = ("phase", "batch_per_worker", "accumulate", "global_batch")
        return self.same_images(other) and all(getattr(self, name) == getattr(other, name) for name in settings)

    def same_images(self, other: EpochSpec) -> bool:
        """Whether samples look alike in both epochs, so that a norm's statistics from one hold in the other."""
        looks = ("resolution", "crop_scale", "crop_ratio", "centre_crop")
        return all(getattr(self, name) == getattr(other, name) for name in looks)


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(EpochSpec) if f.default is not dataclasses.MISSING}
"""What a row has that does not say otherwise; left out of the fingerprint, so that a new column changes no old one."""


@dataclass(frozen=True)
class Totals:
    """Sums over the plan; costs are in epochs at the last resolution."""

    epochs: int
    steps: int
    samples: int
    dropped_samples: int
    cost: float
    cost_at_last_resolution: float
    relative_cost: float
    saving: float
    cost_rule: str


@dataclass(frozen=True)
class Plan:
    """The rows, and the rules that a place between two rows is answered from."""

    rows: tuple[EpochSpec, ...]
    phases: tuple[Phase, ...]
    learning_rate_rule: LearningRate
    world_size: int
    num_samples: int
    seed: int
    cost_rule: str = "area"
    shuffle_window_samples: int | None = None

    def learning_rate(self, position: Position) -> float:
        """The LR of the step that starts at `position`."""
        row = self.rows[position.epoch]
        return self.learning_rate_in(row.phase, row.epoch, position.samples_done / row.num_samples, row.global_batch)

    def learning_rate_in(self, phase: int, epoch: int, share: float, global_batch: int) -> float:
        """At a `share`, 0..1, of `epoch`; at 1 what it comes to in the end."""
        return learning_rate_at(
            self.learning_rate_rule,
            self.phases[phase],
            epoch=epoch + share,
            phase_start=sum(p.epochs for p in self.phases[:phase]),
            num_epochs=sum(p.epochs for p in self.phases),
            global_batch=global_batch,
            size_increases=self._size_increases[epoch],
            arriving=share == 1,
        )

    @cached_property
    def _size_increases(self) -> tuple[int, ...]:
        return size_increases(self.phases)

    @property
    def end(self) -> Position:
        return Position(len(self.rows))

    def after(self, position: Position, samples: int) -> Position:
        """The position `samples` further on, within one epoch."""
        done = position.samples_done + samples
        assert done <= self.rows[position.epoch].num_samples, (position, samples)
        if done == self.rows[position.epoch].num_samples:
            return Position(position.epoch + 1)
        return Position(position.epoch, done)

    def phase_boundaries(self) -> tuple[Position, ...]:
        """The positions at which a phase ends, the run's end among them."""
        ends = [
            row.epoch + 1
            for row in self.rows
            if row.epoch + 1 == len(self.rows) or self.rows[row.epoch + 1].phase != row.phase
        ]
        return tuple(Position(epoch) for epoch in ends)

    @property
    def totals(self) -> Totals:
        cost = sum(row.relative_cost for row in self.rows)
        return Totals(
            epochs=len(self.rows),
            steps=sum(row.steps for row in self.rows),
            samples=sum(row.num_samples for row in self.rows),
            dropped_samples=sum(row.dropped_samples for row in self.rows),
            cost=cost,
            cost_at_last_resolution=float(len(self.rows)),
            relative_cost=cost / len(self.rows),
            saving=1 - cost / len(self.rows),
            cost_rule=self.cost_rule,
        )

    def to_json(self) -> dict[str, Any]:
        """The machine-readable plan, as `resolute plan --format json` prints it."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "totals": dataclasses.asdict(self.totals),
            "world_size": self.world_size,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "shuffle_window_samples": self.shuffle_window_samples,
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the weights: rows but for cost and name, LR rules, seed, samples, world size."""
        between_rows = {"lr_scale", "warmup_epochs", "warmup_start_factor"}
        decisive = {
            "rows": [
                {
                    name: value
                    for name, value in dataclasses.asdict(row).items()
                    if name not in _INDECISIVE and (name not in _DEFAULTS or value != _DEFAULTS[name])
                }
                for row in self.rows
            ],
            "phases": [phase.model_dump(mode="json", include=between_rows) for phase in self.phases],
            "learning_rate": _without_later_fields(self.learning_rate_rule.model_dump(mode="json")),
            "world_size": self.world_size,
            "num_samples": self.num_samples,
            "seed": self.seed,
        }
        if self.shuffle_window_samples is not None:
            decisive["shuffle_window_samples"] = self.shuffle_window_samples
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What decides the weights and differs between two plans in JSON form: a line each, one for rows that differ alike.

    Empty also where only the LR within an epoch differs, which rows do not show.
    """
    lines = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in ("world_size", "num_samples", "seed", "shuffle_window_samples")
        if old.get(key) != new.get(key)
    ]
    old_rows, new_rows = old["rows"], new["rows"]
    if len(old_rows) != len(new_rows):
        lines.append(f"epochs: {len(old_rows)} -> {len(new_rows)}")
    previous: set[str] = set()
    for old_row, new_row in zip(old_rows, new_rows, strict=False):
        old_row = {**_DEFAULTS, **old_row}
        changed = {k for k in new_row if k not in _INDECISIVE and _plain(old_row.get(k)) != _plain(new_row[k])}
        if changed - previous:
            what = ", ".join(f"{k} {old_row.get(k)} -> {new_row[k]}" for k in sorted(changed))
            lines.append(f"from epoch {new_row['epoch']}: {what}")
        previous = changed
    return lines


_LATER_FIELDS = {"restart": "never", "at_size_increase": 1.0, "begin_epoch": 0.0}
"""Of the LR's rules, with the value that stands for how it was before they were there."""


def _without_later_fields(rule: dict[str, Any]) -> dict[str, Any]:
    """`rule`, and its shape, without fields that were added since and change nothing: as the fingerprint was taken."""
    kept = {name: value for name, value in rule.items() if name not in _LATER_FIELDS or value != _LATER_FIELDS[name]}
    return {name: _without_later_fields(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

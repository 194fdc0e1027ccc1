"""Small jobs for tests to vary."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from launcher.config import JobConfig
from launcher.plan import Plan
from launcher.planning import build_plan

MINIMAL = """\
name: tiny
data: {num_samples: 100}
model: {name: small_resnet}
learning_rate: {base: 0.1}
phases:
  - {epochs: 2, resolution: 16, global_batch: 8}
  - {epochs: 1, resolution: 32, global_batch: 8}
"""
FIVE_MISTAKES = """\
name: "no spaces please"
data: {num_samples: 0}
model: {nmae: resnet50}
learning_rate:
  base: -1
phases:
  - {epochs: 1, resolution: {start: 16, end: 30, multiple_of: 16}, global_batch: 8}
"""

_MINIMAL: dict[str, Any] = yaml.safe_load(MINIMAL)


def raw_job(**sections: Any) -> dict[str, Any]:
    """MINIMAL as YAML reads it, with whole sections replaced."""
    return {**copy.deepcopy(_MINIMAL), **sections}


def make_job(*phases: dict[str, Any], **sections: Any) -> JobConfig:
    """A job of these phases; a phase is 1 epoch of 16 px in batches of 8 but for what it says."""
    if phases:
        sections["phases"] = [_phase(**phase) for phase in phases]
    return JobConfig.model_validate(raw_job(**sections))


def make_plan(*phases: dict[str, Any], num_samples: int = 100, world_size: int = 1, **sections: Any) -> Plan:
    return build_plan(make_job(*phases, **sections), num_samples=num_samples, world_size=world_size)


def _phase(**given: Any) -> dict[str, Any]:
    batch = {} if "batch_per_worker" in given else {"global_batch": 8}
    return {"epochs": 1, "resolution": 16, **batch, **given}

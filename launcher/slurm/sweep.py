"""--sweep seed=1,2,3 -> the runs of an array. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import yaml

_MOST_RUNS = 1000


class SweepError(ValueError):
    """A sweep cannot be read as one."""


@dataclass(frozen=True)
class SweepRun:
    """One run: its overrides, and a name for its directory that tells them."""

    name: str
    overrides: tuple[str, ...]


def sweep_runs(sweeps: Sequence[str]) -> list[SweepRun]:
    """Every combination of the values of each `key=value,value,...`; the last key changes fastest.

    Values are YAML: lists stand in brackets, commas in quotes. Raises SweepError.
    """
    axes = [[f"{key}={value}" for value in values] for key, values in map(_read, sweeps)]
    keys = [axis[0].partition("=")[0] for axis in axes]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise SweepError(f"--sweep {repeated[0]}=... stands twice; give all its values to one")
    combinations = list(product(*axes))
    if len(combinations) > _MOST_RUNS:
        raise SweepError(f"--sweep makes {len(combinations)} runs, more than {_MOST_RUNS}; give fewer values")
    return [SweepRun(_name(number, chosen), chosen) for number, chosen in enumerate(combinations)]


def _read(sweep: str) -> tuple[str, list[str]]:
    key, equals, text = sweep.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise SweepError(f"--sweep {sweep}: not a list of values; write key=value,value") from error
    if not key or not equals or not values:
        raise SweepError(f"--sweep {sweep}: needs a key and values, such as seed=1,2,3")
    return key, [
        yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip() for value in values
    ]


def _name(number: int, chosen: Sequence[str]) -> str:
    """The number of the array's task leads, so that two runs never share a name."""
    told = "-".join(re.sub(r"[^A-Za-z0-9=._-]+", "_", override) for override in chosen)
    return f"{number}-{told}"[:100]

"""Sweeps: every combination once, each with a directory name of its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.job_file import parse_job
from launcher.slurm.sweep import SweepError, SweepRun, sweep_runs
from tests.unit.sample_jobs import MINIMAL


def test_one_key_gives_a_run_for_each_value() -> None:
    assert sweep_runs(["seed=1,2"]) == [SweepRun("0-seed=1", ("seed=1",)), SweepRun("1-seed=2", ("seed=2",))]


def test_several_keys_give_every_combination() -> None:
    chosen = [run.overrides for run in sweep_runs(["seed=1,2", "learning_rate.base=0.1,0.2"])]
    assert chosen == [(f"seed={a}", f"learning_rate.base={b}") for a in (1, 2) for b in (0.1, 0.2)]


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("phases.0.crop_scale=[0.1, 1],[0.5, 1]", ["[0.1, 1]", "[0.5, 1]"]),
        ("name='a, b',c", ["a, b", "c"]),
        ("data.skip_corrupt=true,false", ["true", "false"]),
        ("optimizer={name: sgd},{name: adamw}", ["{name: sgd}", "{name: adamw}"]),
        ("seed=3", ["3"]),
    ],
)
def test_values_are_yaml(sweep: str, values: list[str]) -> None:
    assert [run.overrides[0].partition("=")[2] for run in sweep_runs([sweep])] == values


def test_what_a_sweep_sets_is_what_a_job_reads() -> None:
    seeds = [parse_job(MINIMAL, overrides=run.overrides).seed for run in sweep_runs(["seed=7,8"])]
    assert seeds == [7, 8]


@pytest.mark.parametrize("sweep", ["seed", "seed=", "=1,2", "seed=[1", "seed=1\n- 2: {"])
def test_what_is_no_list_of_values_is_refused(sweep: str) -> None:
    with pytest.raises(SweepError, match="--sweep"):
        sweep_runs([sweep])


def test_a_key_given_twice_and_endless_sweeps_are_refused() -> None:
    with pytest.raises(SweepError, match="stands twice"):
        sweep_runs(["seed=1", "seed=2"])
    with pytest.raises(SweepError, match="1024 runs"):
        sweep_runs([f"k{number}=1,2" for number in range(10)])


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), min_size=1, max_size=5))
def test_names_are_apart_and_harmless_whatever_the_values(values: list[str]) -> None:
    quoted = ",".join("'" + "".join(c for c in value if c.isprintable()).replace("'", "''") + "'" for value in values)
    names = [run.name for run in sweep_runs([f"name={quoted}"])]
    assert len(set(names)) == len(values)
    assert all(re.fullmatch(r"[0-9]+-[A-Za-z0-9=._-]{1,98}", name) for name in names)

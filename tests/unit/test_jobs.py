"""The recipes in jobs/: each plans, and opens with the command that runs it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from launcher.job_file import find_job, load_job
from launcher.planning import build_plan

FOLDER = Path(__file__).parents[2] / "jobs"
JOBS = sorted(FOLDER.glob("*.yaml"))
KNOWN_OPTIONS = {"--mode", "--workers", "--run-dir"}


def opening_comment(job: Path) -> list[str]:
    lines = job.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def told_of(job: Path) -> dict[str, str]:
    """What the opening comment says of accuracy, time and source: each from its label to the next one's."""
    parts = re.split(r"(?:^|\n)(Accuracy|Time|Source): ", "\n".join(opening_comment(job)))
    labels = parts[1::2]
    assert labels == ["Accuracy", "Time", "Source"]
    return dict(zip(labels, parts[2::2], strict=True))


def commands(job: Path) -> list[list[str]]:
    """The words of each `resolute run` in the opening comment."""
    return [shlex.split(line) for line in opening_comment(job) if line.startswith("resolute run")]


def test_there_are_recipes() -> None:
    assert JOBS


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
@pytest.mark.parametrize("workers", [1, None], ids=["one worker", "its own workers"])
def test_a_recipe_plans_without_its_data(job: Path, workers: int | None) -> None:
    config = load_job(str(job))
    num_samples = config.data.num_samples
    assert num_samples, "states no data.num_samples, so it cannot be planned where the data is not"
    plan = build_plan(config, num_samples=num_samples, world_size=workers or config.run.most_workers)
    assert len(plan.rows) == config.num_epochs
    assert all(row.lr_start > 0 for row in plan.rows[1:])


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_recipe_is_named_like_its_file(job: Path) -> None:
    assert load_job(str(job)).name == job.stem


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_recipe_opens_with_what_it_is_its_command_and_what_to_expect(job: Path) -> None:
    comment = opening_comment(job)
    assert comment[0].endswith((".", ":"))
    assert commands(job)
    told = told_of(job)
    assert re.search(r"\d %|not published|that of 90 epochs|in a figure", told["Accuracy"])
    assert re.search(r"\b(minutes?|hours?)\b|not( yet)? measured", told["Time"])
    assert re.search(r"https://|arXiv:|docs/|^none\b|^imagenet-rn50-classic\b", told["Source"])


@pytest.mark.parametrize("job", [job for job in JOBS if job.stem.startswith("imagenet")], ids=lambda job: job.stem)
def test_what_others_published_is_not_told_as_measured_here(job: Path) -> None:
    told = told_of(job)
    for label in ("Accuracy", "Time"):
        assert "not yet measured with Resolute" in " ".join(told[label].split())


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_recipes_command_runs_this_recipe_with_overrides_that_it_takes(job: Path) -> None:
    for _, _, source, *arguments in commands(job):
        assert find_job(str(FOLDER.parent / source) if "/" in source else source).samefile(job)
        overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("--")]
        options = {argument for argument in arguments if argument.startswith("--")}
        assert load_job(str(job), overrides).data.train or "data.train" not in " ".join(overrides)
        assert options <= KNOWN_OPTIONS

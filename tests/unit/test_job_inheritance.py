"""Jobs that extend other jobs: what they take over, what they replace, and mistakes on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.config import Constant, Cosine, Sgd
from launcher.job_file import dump_job, load_job, parse_job
from launcher.job_inheritance import inherited
from launcher.mistakes import JobError
from tests.unit.sample_jobs import MINIMAL


def test_sections_are_taken_over_key_by_key_and_lists_whole() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "kept": 3}
    assert inherited(base, {"a": {"c": {"e": 4}}, "list": [5]}) == {
        "a": {"b": 1, "c": {"d": 2, "e": 4}},
        "list": [5],
        "kept": 3,
    }
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "kept": 3}


def test_a_section_of_another_kind_replaces_the_bases() -> None:
    base: dict[str, Any] = {
        "shape": {"kind": "piecewise_linear", "points": [[0, 1], [1, 0]]},
        "optimizer": {"name": "sgd", "momentum": 0},
    }
    own = {"shape": {"kind": "cosine"}, "optimizer": {"name": "adamw"}}
    assert inherited(base, own) == own
    same_kind = {"shape": {"kind": "piecewise_linear", "extra": 1}, "optimizer": {"weight_decay": 1}}
    assert inherited(base, same_kind) == {
        "shape": {**base["shape"], "extra": 1},
        "optimizer": {**base["optimizer"], "weight_decay": 1},
    }


def test_another_model_keeps_what_the_base_says_of_its() -> None:
    base = {"model": {"name": "resnet50", "blurpool": True}}
    assert inherited(base, {"model": {"name": "resnet18"}}) == {"model": {"name": "resnet18", "blurpool": True}}


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_job_has_what_it_extends_over_several_steps_but_for_what_it_says(tmp_path: Path) -> None:
    middle = (
        "extends: first\nname: middle\nlearning_rate: {shape: {kind: cosine}}\noptimizer: {name: sgd, momentum: 0.5}\n"
    )
    write(tmp_path, first=MINIMAL, middle=middle, last="extends: middle.yaml\nname: last\nseed: 7\n")
    job = load_job(str(tmp_path / "last.yaml"), ["optimizer.nesterov=true"])
    first = parse_job(MINIMAL)
    assert (job.name, job.seed, job.phases) == ("last", 7, first.phases)
    assert job.learning_rate.base == first.learning_rate.base
    assert (first.learning_rate.shape, job.learning_rate.shape) == (Constant(), Cosine(kind="cosine"))
    assert job.optimizer == Sgd(momentum=0.5, nesterov=True)
    assert parse_job(dump_job(job)) == job


def test_a_recipe_may_be_extended_by_name_from_anywhere(tmp_path: Path) -> None:
    write(tmp_path, mine="extends: imagenet-rn50-16\nname: mine\n")
    recipe = load_job("imagenet-rn50-16")
    assert load_job(str(tmp_path / "mine.yaml")) == recipe.model_copy(update={"name": "mine"})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"last": "name: a\nextends: nowhere"}, 'line 2: extends: "nowhere": there is no such job file; give a path'),
        ({"last": "extends: demp"}, "did you mean demo?"),
        ({"last": "extends: [a]"}, 'line 1: extends: ["a"]: must be text'),
        ({"last": "extends: last"}, "leads back to itself"),
        (
            {"last": "extends: first", "first": "extends: last"},
            'first.yaml: 1 mistake\n  line 1: extends: "last": leads back',
        ),
        ({"last": "extends: first", "first": "- 1"}, "first.yaml: 1 mistake\n  file: must hold `key: value` lines"),
        ({"last": "extends: first", "first": "a: 1\na: 2"}, "first.yaml: 1 mistake\n  line 2: a: stands twice"),
        ({"last": "extends: first\nseed: x", "first": MINIMAL}, 'line 2: seed: "x": must be a whole number'),
        (
            {"last": "extends: first\nname: b", "first": MINIMAL + "sed: 1"},
            "last.yaml: 1 mistake\n  sed: 1: is not a known key",
        ),
    ],
)
def test_mistakes_are_told_where_they_are(files: dict[str, str], message: str, tmp_path: Path) -> None:
    write(tmp_path, **files)
    with pytest.raises(JobError) as caught:
        load_job(str(tmp_path / "last.yaml"))
    assert message in str(caught.value)


def test_a_job_that_was_resolved_extends_nothing() -> None:
    with pytest.raises(JobError, match=r"extends.*is not a known key"):
        parse_job(MINIMAL + "extends: demo")

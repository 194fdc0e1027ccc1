"""What a run learns of its data before it starts, and every way in which data and job can contradict each other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ffcv_datasets.card import card_path, read_card
from launcher.config import JobConfig
from launcher.data_facts import count_samples, known_num_classes, read_data_facts
from launcher.mistakes import JobError, Problem
from tests.integration.toy import JOB


def job_on(**data: Any) -> JobConfig:
    sets = {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
    return JobConfig.model_validate({**JOB, "data": sets})


def problems_of(**data: Any) -> list[Problem]:
    with pytest.raises(JobError) as caught:
        read_data_facts(job_on(**data), source="job")
    return list(caught.value.problems)


@pytest.fixture
def copies(drawn: Path, tmp_path: Path) -> Path:
    """The drawn data set, to be spoilt."""
    return Path(shutil.copytree(drawn, tmp_path / "copies"))


def test_facts_come_from_the_card(drawn: Path) -> None:
    card = read_card(drawn / "train.beton")
    assert card is not None
    facts = read_data_facts(job_on(train=drawn / "train.beton", val=drawn / "val.beton"), source="job")
    assert (facts.num_samples, facts.num_classes, facts.classes) == (250, 12, card.classes)
    assert (facts.channel_mean, facts.channel_std) == (card.channel_mean, card.channel_std)


def test_the_job_has_the_last_word_on_classes_and_statistics(drawn: Path) -> None:
    given = {"num_classes": 20, "channel_mean": [1, 2, 3], "channel_std": [4, 5, 6]}
    facts = read_data_facts(job_on(train=drawn / "train.beton", **given), source="job")
    assert (facts.num_classes, facts.channel_mean, facts.channel_std) == (20, (1, 2, 3), (4, 5, 6))


def test_without_a_card_labels_are_counted_and_imagenets_statistics_used(copies: Path) -> None:
    for name in ("train", "val"):
        card_path(copies / f"{name}.beton").unlink()
    facts = read_data_facts(job_on(train=copies / "train.beton", val=copies / "val.beton"), source="job")
    assert (facts.num_samples, facts.num_classes, facts.classes) == (250, 12, None)
    assert facts.channel_mean == (123.675, 116.28, 103.53)


def test_a_run_needs_training_data_but_none_to_evaluate_on(drawn: Path) -> None:
    (problem,) = problems_of(num_samples=250)
    assert (problem.path, problem.rule) == ("data.train", "is needed to run")
    assert read_data_facts(job_on(train=drawn / "train.beton"), source="job").num_samples == 250


def test_both_missing_files_are_named(tmp_path: Path) -> None:
    problems = problems_of(train=tmp_path / "a.beton", val=tmp_path / "b.beton")
    assert [(problem.path, problem.rule) for problem in problems] == [
        ("data.train", "there is no such file"),
        ("data.val", "there is no such file"),
    ]


def test_both_broken_files_are_named(copies: Path) -> None:
    (copies / "train.beton").write_bytes(b"")
    (copies / "val.beton").write_bytes((copies / "val.beton").read_bytes()[:100])
    problems = problems_of(train=copies / "train.beton", val=copies / "val.beton")
    assert [problem.path for problem in problems] == ["data.train", "data.val"]
    assert all(problem.rule.startswith("cannot be used: ") for problem in problems)


def test_contradictions_between_job_and_files_are_all_named(drawn: Path) -> None:
    problems = problems_of(train=drawn / "train.beton", val=drawn / "val.beton", num_samples=251, num_classes=3)
    assert [(problem.path, problem.fix) for problem in problems] == [
        ("data.num_samples", "write 250, or delete the line"),
        ("data.train", "set data.num_classes=12"),
        ("data.val", "set data.num_classes=12"),
    ]


def test_sets_of_different_classes_do_not_go_together(copies: Path) -> None:
    card = card_path(copies / "val.beton")
    text = card.read_text()
    names = read_card(copies / "val.beton")
    assert names is not None
    assert names.classes is not None
    card.write_text(text.replace(f'"{names.classes[0]}"', '"another"'))
    (problem,) = problems_of(train=copies / "train.beton", val=copies / "val.beton")
    assert (problem.path, problem.rule) == ("data.val", "its classes differ from the training set's")


def test_samples_are_counted_for_a_plan_by_job_card_or_file(copies: Path) -> None:
    train = copies / "train.beton"
    assert count_samples(job_on(train=train, num_samples=7), source="job") == 7
    assert count_samples(job_on(train=train), source="job") == 250
    card_path(train).unlink()
    assert count_samples(job_on(train=train), source="job") == 250
    with pytest.raises(JobError, match=r"data\.num_samples: is needed"):
        count_samples(job_on(train=copies / "no.beton"), source="job")


def test_classes_are_known_from_job_or_card_or_taken_for_imagenets(drawn: Path) -> None:
    assert known_num_classes(job_on(train=drawn / "train.beton", num_classes=5)) == 5
    assert known_num_classes(job_on(train=drawn / "train.beton")) == 12
    assert known_num_classes(job_on()) == 1000

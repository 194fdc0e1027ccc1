"""What a run must know of its data before it starts: from the job, the data sets' cards and the files' own tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import Card, read_card, require_own
from launcher.config import Data, JobConfig
from launcher.mistakes import JobError, Problem

# Of ImageNet's training set, 0..255: the usual statistics for a data set without its own.
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class DataFacts:
    """Both data sets as a run sees them."""

    num_samples: int
    num_classes: int
    classes: tuple[str, ...] | None
    channel_mean: tuple[float, float, float]
    channel_std: tuple[float, float, float]


def count_samples(job: JobConfig, *, source: str) -> int:
    """Training samples, for a plan: the job's own word, else what the file says. Raises JobError."""
    if job.data.num_samples is not None:
        return job.data.num_samples
    if job.data.train is None or not Path(job.data.train).is_file():
        fix = "give data.num_samples=N, or data.train=FILE.beton"
        raise JobError(
            source, [Problem("data.num_samples", "", "is needed, as there is no training file to count", fix)]
        )
    card = read_card(Path(job.data.train))
    return card.num_samples if card else _num_samples(job.data.train)


def known_num_classes(job: JobConfig) -> int:
    """Classes as the job or its data tells; 1000, ImageNet's, where neither does."""
    if job.data.num_classes is not None:
        return job.data.num_classes
    card = read_card(Path(job.data.train)) if job.data.train else None
    return len(card.classes) if card and card.classes else 1000


def read_data_facts(job: JobConfig, *, source: str) -> DataFacts:
    """Open both files and hold them against the job and each other. Raises JobError with all mistakes."""
    problems = [*_missing("train", job.data.train), *(_missing("val", job.data.val) if job.data.val else [])]
    if problems:
        raise JobError(source, problems)
    assert job.data.train is not None
    train = _Opened.read("train", job.data.train, problems)
    val = _Opened.read("val", job.data.val, problems) if job.data.val else None
    if problems or train is None:
        raise JobError(source, problems)
    num_classes = _num_classes(job.data, train, val)
    problems += _contradictions(job.data, train, val, num_classes)
    if problems:
        raise JobError(source, problems)
    card = train.card
    return DataFacts(
        num_samples=train.num_samples,
        num_classes=num_classes,
        classes=tuple(card.classes) if card and card.classes else None,
        channel_mean=job.data.channel_mean or (card.channel_mean if card else _IMAGENET_MEAN),
        channel_std=job.data.channel_std or (card.channel_std if card else _IMAGENET_STD),
    )


@dataclass(frozen=True)
class _Opened:
    """One data set, opened and read."""

    path: str
    num_samples: int
    max_label: int
    card: Card | None

    @classmethod
    def read(cls, key: str, path: str, problems: list[Problem]) -> _Opened | None:
        try:
            with Beton(Path(path)) as beton:
                card = read_card(Path(path))
                if card is not None:
                    require_own(card, Path(path), num_samples=beton.num_samples)
                return cls(path, beton.num_samples, int(beton.labels().max(initial=0)), card)
        except (ValueError, OSError) as error:
            problems.append(
                Problem(
                    f"data.{key}",
                    path,
                    f"cannot be used: {error}",
                    "write it again with `resolute data write`",
                )
            )
            return None


def _num_samples(path: str) -> int:
    with Beton(Path(path)) as beton:
        return beton.num_samples


def _num_classes(data: Data, train: _Opened, val: _Opened | None) -> int:
    if data.num_classes is not None:
        return data.num_classes
    if train.card and train.card.classes:
        return len(train.card.classes)
    return max(train.max_label, val.max_label if val else 0) + 1


def _missing(key: str, path: str | None) -> list[Problem]:
    where = f"data.{key}"
    if path is None:
        return [
            Problem(
                where,
                "",
                "is needed to run",
                f"add {where}: FILE.beton, or {where}=FILE.beton on the command line",
            )
        ]
    if not Path(path).is_file():
        return [Problem(where, path, "there is no such file", "check the path, or write it with `resolute data write`")]
    return []


def _contradictions(data: Data, train: _Opened, val: _Opened | None, num_classes: int) -> list[Problem]:
    problems = []
    if data.num_samples is not None and data.num_samples != train.num_samples:
        fix = f"write {train.num_samples}, or delete the line"
        rule = f"{train.path} holds {train.num_samples} samples"
        problems.append(Problem("data.num_samples", str(data.num_samples), rule, fix))
    for key, opened in (("train", train), ("val", val)):
        if opened is not None and opened.num_samples == 0:
            problems.append(Problem(f"data.{key}", opened.path, "holds no samples", "give another file"))
        if opened is not None and opened.max_label >= num_classes:
            rule = f"holds label {opened.max_label}, beyond {num_classes} classes"
            problems.append(Problem(f"data.{key}", opened.path, rule, f"set data.num_classes={opened.max_label + 1}"))
    if val and train.card and val.card and train.card.classes != val.card.classes:
        rule = "its classes differ from the training set's"
        problems.append(Problem("data.val", val.path, rule, "write both from one tree, so that labels agree"))
    return problems

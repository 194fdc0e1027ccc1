"""Job file -> JobConfig: find it, read it, apply overrides, and report every mistake at once."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from launcher.config import JobConfig
from launcher.job_inheritance import inherited
from launcher.job_text import MAX_CHARACTERS, Lines, Location, Text, TextError, read_text, unprintable_texts, write_text
from launcher.mistakes import JobError, Problem, cut, explain, format_location, line_of, shorten

Document = TypeVar("Document", bound=BaseModel)
_BUNDLED_JOBS = (Path("jobs"), Path(__file__).parent / "jobs", Path(__file__).parent.parent / "jobs")
"""Where recipes lie: here, inside the installed package, beside it in a checkout."""


def load_job(source: str, overrides: Iterable[str] = ()) -> JobConfig:
    """Read a job by path or by the name of a bundled recipe, with `a.b=c` overrides applied.

    A job that says `extends: OTHER`, a recipe's name or a path from its own folder, has all that the other one has but
    for what it says itself. Raises JobError with all mistakes.
    """
    path = find_job(source)
    raw = _read(_text_of(path), source=str(path), model=JobConfig)
    return _validated(JobConfig, _extended(raw, (path.resolve(),)), source=str(path), overrides=overrides)


def find_job(source: str) -> Path:
    """The path of a job file: `source` itself, or a recipe of that name in jobs/."""
    return find_document(source, _BUNDLED_JOBS, what="job file")


def parse_job(text: str, *, source: str = "job", overrides: Iterable[str] = ()) -> JobConfig:
    """YAML text -> JobConfig. Raises JobError with all mistakes."""
    return parse_document(JobConfig, text, source=source, overrides=overrides)


def load_document(model: type[Document], path: Path, overrides: Iterable[str] = ()) -> Document:
    """Read a YAML file that holds a `model`, with `a.b=c` overrides applied. Raises JobError with all mistakes."""
    return parse_document(model, _text_of(path), source=str(path), overrides=overrides)


def _text_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_CHARACTERS + 1)  # It may be a device without end.
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(str(path), [Problem("file", "", f"cannot be read ({error})", "check the path")]) from error


def find_document(source: str, bundled: Iterable[Path], *, what: str) -> Path:
    """`source` itself if that is a file, or NAME.yaml in the first of the folders `bundled` that has it."""
    path = Path(source)
    if path.exists() and not path.is_dir():
        return path
    folders = [folder for folder in bundled if folder.is_dir()]
    if path.name == source:
        for folder in folders:
            candidate = folder / (source if source.endswith(".yaml") else f"{source}.yaml")
            if candidate.is_file():
                return candidate
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    near = difflib.get_close_matches(path.stem, known, n=1)
    fix = f"did you mean {near[0]}?" if near else f"give a path, or one of: {', '.join(known)}"
    raise JobError(source, [Problem("file", "", f"there is no such {what}", fix)])


def parse_document(model: type[Document], text: str, *, source: str, overrides: Iterable[str] = ()) -> Document:
    """YAML text -> what it holds, as a `model`. Raises JobError with all mistakes."""
    return _validated(model, _read(text, source=source, model=model), source=source, overrides=overrides)


def _read(text: str, *, source: str, model: type[BaseModel]) -> Text:
    """The text's keys and values. Raises JobError if it has none."""
    try:
        read = read_text(text)
    except TextError as error:
        raise JobError(source, [Problem("file", "", error.rule, error.fix, error.line)]) from error
    if not isinstance(read.value, dict):
        first_key = next(iter(model.model_fields))
        raise JobError(source, [Problem("file", "", "must hold `key: value` lines", f"start with `{first_key}: ...`")])
    return read


def _extended(read: Text, chain: tuple[Path, ...]) -> Text:
    """A job with what it takes over from the one it extends; `chain` leads to it, from the job that was asked for."""
    if "extends" not in read.value:
        return read
    own = {key: value for key, value in read.value.items() if key != "extends"}
    base = _base(read, chain)
    taken = _extended(_read(_text_of(base), source=str(base), model=JobConfig), (*chain, base.resolve()))
    if taken.repeated:
        raise JobError(str(base), _repetitions(taken))
    return dataclasses.replace(read, value=inherited(taken.value, own))


def _base(read: Text, chain: tuple[Path, ...]) -> Path:
    """The path of the job that is extended. Raises JobError."""
    name, path = read.value["extends"], chain[-1]

    def refusal(rule: str, fix: str) -> JobError:
        return JobError(str(path), [Problem("extends", shorten(name), rule, fix, read.lines.get(("extends",)))])

    if not isinstance(name, str):
        raise refusal("must be text", "give a recipe's name, or a path")
    beside = [path.parent / name, path.parent / f"{name}.yaml"]
    try:
        base = next((file for file in beside if file.is_file()), None) or find_job(name)
    except JobError as error:
        raise refusal(error.problems[0].rule, error.problems[0].fix) from error
    if base.resolve() in chain:
        raise refusal("leads back to itself", "delete it in one of them")
    return base


def _validated(model: type[Document], read: Text, *, source: str, overrides: Iterable[str]) -> Document:
    raw, lines, problems = read.value, read.lines, _repetitions(read)
    for override in overrides:
        problem = _apply_override(raw, lines, override)
        if problem:
            problems.append(problem)
    problems += [
        Problem(format_location(place), "", "holds control characters", "delete them", line_of(place, lines))
        for place in unprintable_texts(raw)
    ]
    try:
        document = model.model_validate(raw)
    except ValidationError as error:
        problems += explain(error, raw, lines, model)
    if problems:
        raise JobError(source, problems)
    return document


def _repetitions(read: Text) -> list[Problem]:
    return [
        Problem(format_location(place), "", f"stands twice, first in line {first}", "delete one of them", line)
        for place, line, first in read.repeated
    ]


def dump_job(job: JobConfig) -> str:
    """The resolved job as YAML that `parse_job` reads back to an equal JobConfig."""
    return write_text(job.model_dump(mode="json"))


def _apply_override(raw: dict[str, Any], lines: Lines, override: str) -> Problem | None:
    """Set `a.b=c`, `phases.0.epochs=3` or `phases[0].epochs=3` in `raw`; the value is YAML."""
    name, equals, text = override.partition("=")
    keys = re.findall(r"[^.\[\]]+", name)
    if not equals or not keys:
        return Problem(override, "", "is not an override", "write key=value, such as learning_rate.base=0.1")
    try:
        value = read_text(text).value
    except TextError:
        return Problem(name, cut(text), "is not a YAML value", "quote it")
    target: Any = raw
    location: Location = ()
    for depth, key in enumerate(keys, start=1):
        broken = _no_entry(target, key, where=format_location(location))
        if broken:
            return Problem(name, "", *broken)
        index = int(key) if isinstance(target, list) else key
        location = (*location, index)
        if depth == len(keys):
            target[index] = value
            break
        inner = target[index] if isinstance(target, list) else target.get(index)
        # A copy, as another part of the job may be an alias of this one.
        target[index] = {} if inner is None else copy.copy(inner)
        target = target[index]
    for known in [known for known in lines if known[: len(location)] == location]:
        del lines[known]
    lines[location] = None
    return None


def _no_entry(target: Any, key: str, *, where: str) -> tuple[str, str] | None:
    """Rule and fix if `target`, which lies at `where`, can have no entry `key`."""
    if isinstance(target, list):
        if key.isdecimal() and int(key) < len(target):
            return None
        return f"{where} has no entry {key}", f"use 0 to {len(target) - 1}" if target else f"override {where} itself"
    if isinstance(target, dict):
        return None
    return f"{where} is a plain value without parts", f"override {where} itself"

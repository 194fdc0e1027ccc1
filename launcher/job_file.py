"""Job file -> JobConfig: find it, read it, apply overrides, and report every mistake at once."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from launcher.config import JobConfig

Location = tuple[int | str, ...]
_ABSENT = object()
_BUNDLED_JOBS = (Path("jobs"), Path(__file__).parent.parent / "jobs", Path(__file__).parent / "jobs")


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was found, which rule it breaks, what to write instead."""

    path: str
    value: str
    rule: str
    fix: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        value = f" {self.value}:" if self.value else ""
        return f"{where}{self.path}:{value} {self.rule}; {self.fix}"


class JobError(ValueError):
    """A job that cannot be run as written; `problems` holds every mistake that was found."""

    def __init__(self, source: str, problems: Sequence[Problem]):
        super().__init__(source, tuple(problems))
        self.source = source
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = f"{len(self.problems)} mistake" + ("s" if len(self.problems) > 1 else "")
        return "\n".join([f"{self.source}: {count}", *(f"  {problem}" for problem in self.problems)])


def load_job(source: str, overrides: Iterable[str] = ()) -> JobConfig:
    """Read a job by path or by the name of a bundled recipe, with `a.b=c` overrides applied.

    Raises JobError with all mistakes.
    """
    path = find_job(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(str(path), [Problem("file", "", f"cannot be read ({error})", "check the path")]) from error
    return parse_job(text, source=str(path), overrides=overrides)


def find_job(source: str) -> Path:
    """The path of a job file: `source` itself, or a recipe of that name in jobs/."""
    path = Path(source)
    if path.exists():
        return path
    folders = [folder for folder in _BUNDLED_JOBS if folder.is_dir()]
    if path.name == source:
        for folder in folders:
            candidate = folder / (source if source.endswith(".yaml") else f"{source}.yaml")
            if candidate.is_file():
                return candidate
    known = sorted({job.stem for folder in folders for job in folder.glob("*.yaml")})
    near = difflib.get_close_matches(path.stem, known, n=1)
    fix = f"did you mean {near[0]}?" if near else f"give a path, or one of: {', '.join(known)}"
    raise JobError(source, [Problem("file", "", "there is no such job file", fix)])


def parse_job(text: str, *, source: str = "job", overrides: Iterable[str] = ()) -> JobConfig:
    """YAML text -> JobConfig. Raises JobError with all mistakes."""
    try:
        raw = yaml.safe_load(text)
        lines, problems = _read_lines(text)
    except yaml.YAMLError as error:
        raise JobError(source, [_yaml_problem(error)]) from error
    if not isinstance(raw, dict):
        raise JobError(source, [Problem("file", "", "must hold `key: value` lines", "start with `name: my-job`")])
    for override in overrides:
        problem = _apply_override(raw, override)
        if problem:
            problems.append(problem)
    try:
        job = JobConfig.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [_explain(details, raw, lines) for details in found if not _follows_from_others(details, found)]
    if problems:
        raise JobError(source, problems)
    return job


def dump_job(job: JobConfig) -> str:
    """The resolved job as YAML that `parse_job` reads back to an equal JobConfig."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    rule = f"is not valid YAML ({getattr(error, 'problem', None) or error})"
    return Problem("file", "", rule, "check indentation, quotes and colons there", mark.line + 1 if mark else None)


def _read_lines(text: str) -> tuple[dict[Location, int], list[Problem]]:
    """The line of every key, and a problem for each key that stands twice (YAML would keep the last, silently)."""
    lines: dict[Location, int] = {}
    problems: list[Problem] = []

    def walk(node: yaml.Node | None, location: Location) -> None:
        here: Location
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                here = (*location, str(key_node.value))
                line = key_node.start_mark.line + 1
                if here in lines:
                    rule = f"stands twice, first in line {lines[here]}"
                    problems.append(Problem(format_location(here), "", rule, "delete one of them", line))
                lines[here] = line
                walk(value_node, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                here = (*location, index)
                lines[here] = item.start_mark.line + 1
                walk(item, here)

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines, problems


def _apply_override(raw: dict[str, Any], override: str) -> Problem | None:
    """Set `a.b=c`, `phases.0.epochs=3` or `phases[0].epochs=3` in `raw`; the value is YAML."""
    name, equals, text = override.partition("=")
    keys = re.findall(r"[^.\[\]]+", name)
    if not equals or not keys:
        return Problem(override, "", "is not an override", "write key=value, such as learning_rate.base=0.1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return Problem(name, text, "is not a YAML value", "quote it")
    target: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not key.isdigit() or int(key) >= len(target):
                where = format_location(tuple(keys[:depth]))
                return Problem(name, "", f"{where} has {len(target)} entries", f"use 0 to {len(target) - 1}")
            if last:
                target[int(key)] = value
            else:
                target = target[int(key)]
        elif isinstance(target, dict):
            if last:
                target[key] = value
            else:
                if target.get(key) is None:
                    target[key] = {}
                target = target[key]
        else:
            where = format_location(tuple(keys[:depth]))
            return Problem(name, "", f"{where} is a plain value without parts", f"override {where} itself")
    return None


def _explain(details: ErrorDetails, raw: Mapping[str, Any], lines: Mapping[Location, int]) -> Problem:
    kind, context = details["type"], details.get("ctx") or {}
    location = _without_tags(details["loc"], raw, key_is_absent=kind == "missing")
    value = _shorten(details["input"])
    if kind == "extra_forbidden":
        siblings = _known_keys(location[:-1], raw)
        near = difflib.get_close_matches(str(location[-1]), siblings, n=1, cutoff=0.5)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(siblings))}"
        rule = "is not a known key"
    elif kind == "missing":
        rule, fix, value = "is required", f"add `{location[-1]}: ...`", ""
    elif kind == "rule":
        rule, fix, value = str(context["rule"]), str(context["fix"]), ""
    else:
        rule = details["msg"].removeprefix("Input ").removeprefix("input ")
        fix = _FIXES.get(kind, "change it to fit")
        if kind in ("literal_error", "union_tag_invalid"):
            fix = f"use one of {context.get('expected') or context.get('expected_tags')}"
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    return Problem(format_location(location), value, rule, fix, line)


_FIXES = {
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "string_type": "write text, in quotes if it looks like a number",
    "bool_type": "write true or false",
    "greater_than": "use a larger number",
    "greater_than_equal": "use a larger number",
    "less_than": "use a smaller number",
    "less_than_equal": "use a smaller number",
    "tuple_type": "write a list, such as [0.25, 1.0]",
    "model_type": "write indented `key: value` lines below it",
    "string_pattern_mismatch": "use letters, digits, dot, dash and underscore",
    "too_short": "add an entry",
    "union_tag_not_found": "say which kind",
}


def _follows_from_others(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """A list whose entries are all wrong is also called too short; only the entries' mistakes are news."""
    location = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in found
    )


def _without_tags(location: Location, raw: Any, *, key_is_absent: bool) -> Location:
    """Drop what pydantic adds to a location to tell the members of a union apart."""
    kept: list[int | str] = []
    current = raw
    for depth, key in enumerate(location):
        inner = current.get(key, _ABSENT) if isinstance(current, dict) else _ABSENT
        if isinstance(current, (list, tuple)) and isinstance(key, int) and key < len(current):
            inner = current[key]
        if inner is not _ABSENT:
            current = inner
        elif depth < len(location) - 1 or not key_is_absent:
            continue
        kept.append(key)
    return tuple(kept)


def _known_keys(location: Location, raw: Any) -> list[str]:
    """The keys that the model at `location` accepts."""
    models: list[type[BaseModel]] = [JobConfig]
    current = raw
    for key in location:
        current = current[key]
        if isinstance(key, str):
            fields = [model.model_fields[key].annotation for model in models if key in model.model_fields]
            models = [found for annotation in fields for found in _models_in(annotation)]
    tag = next(
        (current.get(name) for name in ("kind", "name") if isinstance(current, dict) and name in current),
        None,
    )
    chosen = [m for m in models if any(tag in typing.get_args(f.annotation) for f in m.model_fields.values())]
    return [name for model in chosen or models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is not None:
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _shorten(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def format_location(location: Location) -> str:
    """("phases", 1, "resolution") -> "phases[1].resolution"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return text.removeprefix(".") or "job"

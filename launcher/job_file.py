"""Job file -> JobConfig: find it, read it, apply overrides, and report every mistake at once."""

from __future__ import annotations

import copy
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
Lines = dict[Location, int | None]
"""Where in the file each key stands; None for what an override has set."""
_ABSENT = object()
# What PyYAML raises: its own errors, and ValueError for such as 2020-13-45, which it takes for a date.
_YAML_ERRORS = (yaml.YAMLError, ValueError)
_BUNDLED_JOBS = (Path("jobs"), Path(__file__).parent / "jobs", Path(__file__).parent.parent / "jobs")
"""Where recipes lie: here, inside the installed package, beside it in a checkout."""


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
    if path.exists() and not path.is_dir():
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
    except _YAML_ERRORS as error:
        raise JobError(source, [_yaml_problem(error)]) from error
    if not isinstance(raw, dict):
        raise JobError(source, [Problem("file", "", "must hold `key: value` lines", "start with `name: my-job`")])
    for override in overrides:
        problem = _apply_override(raw, lines, override)
        if problem:
            problems.append(problem)
    try:
        job = JobConfig.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [
            _explain(details, raw, lines) for details in found if not _follows_from_others(details, found, raw)
        ]
    if problems:
        raise JobError(source, problems)
    return job


def dump_job(job: JobConfig) -> str:
    """The resolved job as YAML that `parse_job` reads back to an equal JobConfig."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)


def _yaml_problem(error: yaml.YAMLError | ValueError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = " ".join(str(getattr(error, "problem", None) or error).split())
    fix = "check indentation, quotes and colons there"
    return Problem("file", "", f"is not valid YAML ({reason})", fix, mark.line + 1 if mark else None)


def _read_lines(text: str) -> tuple[Lines, list[Problem]]:
    """The line of every key, and a problem for each key that stands twice (YAML would keep the last, silently)."""
    lines: Lines = {}
    problems: list[Problem] = []
    walked: set[yaml.Node] = set()

    def walk(node: yaml.Node | None, location: Location) -> None:
        here: Location
        if node is None or node in walked:  # An alias: its mistakes stand where it is anchored. It may hold itself.
            return
        walked.add(node)
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


def _apply_override(raw: dict[str, Any], lines: Lines, override: str) -> Problem | None:
    """Set `a.b=c`, `phases.0.epochs=3` or `phases[0].epochs=3` in `raw`; the value is YAML."""
    name, equals, text = override.partition("=")
    keys = re.findall(r"[^.\[\]]+", name)
    if not equals or not keys:
        return Problem(override, "", "is not an override", "write key=value, such as learning_rate.base=0.1")
    try:
        value = yaml.safe_load(text)
    except _YAML_ERRORS:
        return Problem(name, text, "is not a YAML value", "quote it")
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


def _explain(details: ErrorDetails, raw: Mapping[str, Any], lines: Lines) -> Problem:
    kind, context, value = details["type"], details.get("ctx") or {}, _shorten(details["input"])
    location = _without_tags(details["loc"], raw, key_is_absent=kind == "missing")
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1], raw)
        near = _nearest(str(location[-1]), known)
        rule, fix = (
            "is not a known key",
            f"did you mean `{near}`?" if near else f"known here: {', '.join(sorted(known))}",
        )
    elif kind == "missing" and isinstance(location[-1], str):
        rule, fix, value = "is required", f"add `{location[-1]}: ...`", ""
    elif kind == "missing":
        location, rule, fix = location[:-1], "has too few entries", "add an entry"
    elif kind == "rule":
        rule, fix = str(context["rule"]), str(context["fix"])
        value = "" if details["input"] is None else value
    else:
        rule, fix = _WORDS.get(kind, (details["msg"], "change it to fit"))
        words = {name: word.strip("'") if name == "discriminator" else word for name, word in context.items()}
        rule, fix = rule.format_map(words), fix.format_map(words)
    return Problem(format_location(location), value, rule, fix, line)


_NUMBER = ("must be a number", "write a number")
_SECTION = ("must hold keys of its own", "write indented `key: value` lines below it")
_WORDS = {
    "int_type": ("must be a whole number", "write a whole number"),
    "int_from_float": ("must be a whole number", "write a whole number"),
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": ("must be a finite number", "write a finite number"),
    "string_type": ("must be text", "put it in quotes"),
    "bool_type": ("must be true or false", "write true or false"),
    "greater_than": ("must be more than {gt:g}", "use a larger number"),
    "greater_than_equal": ("must be at least {ge:g}", "use {ge:g} or more"),
    "less_than": ("must be less than {lt:g}", "use a smaller number"),
    "less_than_equal": ("must be at most {le:g}", "use {le:g} or less"),
    "tuple_type": ("must be a list", "write a list: `- ...` lines below it, or [..., ...]"),
    "too_short": ("must have at least {min_length} entries", "add an entry"),
    "too_long": ("must have at most {max_length} entries", "delete the others"),
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "invalid-json-value": ("is not text, a number, true, false, null, a list or keys", "put it in quotes"),
    "recursion_loop": ("holds itself", "write it out"),
    "invalid_key": ("is a key, but no text", "put the key in quotes"),
    "literal_error": ("is none of the choices", "use {expected}"),
    "union_tag_invalid": ("{discriminator} {tag} is not known", "use one of {expected_tags}"),
    "union_tag_not_found": ("does not say its {discriminator}", "add `{discriminator}: ...`"),
    "string_pattern_mismatch": (
        "holds what a name may not hold",
        "use letters, digits, dot, dash and underscore, at most 100, the first a letter or digit",
    ),
}
"""Rule and fix for each of pydantic's error types that a job can meet; placeholders are the error's context."""


def _follows_from_others(details: ErrorDetails, found: Sequence[ErrorDetails], raw: Any) -> bool:
    """Whether an error only repeats another, which is the mistake.

    A list whose entries are all wrong is also called too short; a key that is misspelt is also missing.
    """
    location = details["loc"]
    if details["type"] == "too_short":
        return any(len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in found)
    if details["type"] != "missing" and details["input"] is not None:
        return False
    awaited = {location[-1], *(details.get("ctx") or {}).get("alternatives", ())}
    beside = [
        other["loc"] for other in found if other["type"] == "extra_forbidden" and other["loc"][:-1] == location[:-1]
    ]
    known = _known_keys(_without_tags(location[:-1], raw, key_is_absent=False), raw) if beside else []
    return any(_nearest(str(path[-1]), known) in awaited for path in beside)


def _nearest(key: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return near[0] if near else None


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
    """As JSON, of which at most 60 characters are made: an alias may make a value endless."""
    text = ""
    try:
        for part in json.JSONEncoder(default=str, ensure_ascii=False).iterencode(value):
            text += part
            if len(text) > 60:
                return f"{text[:57]}..."
    except (TypeError, ValueError):  # A key that JSON has not, or a list that holds itself.
        return f"{text}..."
    return text


def format_location(location: Location) -> str:
    """("phases", 1, "resolution") -> "phases[1].resolution"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return text.removeprefix(".") or "job"

"""Job file -> JobConfig: find it, read it, apply overrides, and report every mistake at once."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from launcher.config import JobConfig
from launcher.job_inheritance import inherited
from launcher.job_text import MAX_CHARACTERS, Lines, Location, Text, TextError, read_text, unprintable_texts, write_text
from launcher.printable import printable

Document = TypeVar("Document", bound=BaseModel)
_ABSENT = object()
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
        return printable(f"{where}{self.path}:{value} {self.rule}; {self.fix}")


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
        return JobError(str(path), [Problem("extends", _shorten(name), rule, fix, read.lines.get(("extends",)))])

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
        Problem(format_location(place), "", "holds control characters", "delete them", _line_of(place, lines))
        for place in unprintable_texts(raw)
    ]
    try:
        document = model.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [
            _explain(details, raw, lines, model)
            for details in found
            if not _follows_from_others(details, found, raw, model)
        ]
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
        return Problem(name, _cut(text), "is not a YAML value", "quote it")
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


def _explain(details: ErrorDetails, raw: Mapping[str, Any], lines: Lines, model: type[BaseModel]) -> Problem:
    kind, context, value = details["type"], details.get("ctx") or {}, _shorten(details["input"])
    location = _without_tags(details["loc"], raw, key_is_absent=kind == "missing")
    line = _line_of(location, lines)
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1], raw, model)
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


def _line_of(location: Location, lines: Lines) -> int | None:
    """The line of what stands at `location`, or of the nearest that is around it."""
    return next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)


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


def _follows_from_others(
    details: ErrorDetails, found: Sequence[ErrorDetails], raw: Any, model: type[BaseModel]
) -> bool:
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
    known = _known_keys(_without_tags(location[:-1], raw, key_is_absent=False), raw, model) if beside else []
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


def _known_keys(location: Location, raw: Any, model: type[BaseModel]) -> list[str]:
    """The keys that the model at `location` accepts."""
    models: list[type[BaseModel]] = [model]
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
    fields_of = [model.model_fields for model in chosen or models]
    return list(dict.fromkeys(field.alias or name for known in fields_of for name, field in known.items()))


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
                break
    except (TypeError, ValueError):  # A key that JSON has not, or a list that holds itself.
        return f"{text}..."
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def format_location(location: Location) -> str:
    """("phases", 1, "resolution") -> "phases[1].resolution"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return text.removeprefix(".") or "job"

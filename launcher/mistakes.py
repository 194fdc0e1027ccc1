"""What is wrong with a job file or site profile: where, which rule it breaks, what to write instead."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from launcher.job_text import Lines, Location
from launcher.printable import printable

_ABSENT = object()


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


def explain(error: ValidationError, raw: Mapping[str, Any], lines: Lines, model: type[BaseModel]) -> list[Problem]:
    """pydantic's error as mistakes of the one who wrote `raw`, whose keys stand in these lines; those that only follow
    from others are left out.
    """
    found = error.errors(include_url=False)
    return [
        _explained(details, raw, lines, model)
        for details in found
        if not _follows_from_others(details, found, raw, model)
    ]


def _explained(details: ErrorDetails, raw: Mapping[str, Any], lines: Lines, model: type[BaseModel]) -> Problem:
    kind, context, value = details["type"], details.get("ctx") or {}, shorten(details["input"])
    location = _without_tags(details["loc"], raw, key_is_absent=kind == "missing")
    line = line_of(location, lines)
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


def line_of(location: Location, lines: Lines) -> int | None:
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


def shorten(value: Any) -> str:
    """As JSON, of which at most 60 characters are made: an alias may make a value endless."""
    text = ""
    try:
        for part in json.JSONEncoder(default=str, ensure_ascii=False).iterencode(value):
            text += part
            if len(text) > 60:
                break
    except (TypeError, ValueError):  # A key that JSON has not, or a list that holds itself.
        return f"{text}..."
    return cut(text)


def cut(text: str) -> str:
    """At most 60 characters of it."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def format_location(location: Location) -> str:
    """("phases", 1, "resolution") -> "phases[1].resolution"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return text.removeprefix(".") or "job"

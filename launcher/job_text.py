"""YAML text -> plain values, and where each stands. A stranger's, too: nothing in it runs, or outgrows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from launcher.printable import UNPRINTABLE

Location = tuple[int | str, ...]
Lines = dict[Location, int | None]
"""Where in the file each key stands; None for what an override has set."""

MAX_CHARACTERS = 100_000
_MAX_VALUES = 100_000
"""In a job, its aliases written out."""


class _Loader(yaml.SafeLoader):
    """Takes 5e-4 for the number that YAML 1.2 says it is; in 1.1, PyYAML's, it would be a text."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that _Loader would take for a number."""


_WITH_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _WITH_EXPONENT, list("-+.0123456789"))


class TextError(ValueError):
    """A text that is not to be read as YAML: why, what to do, and in which line."""

    def __init__(self, rule: str, fix: str, line: int | None = None):
        super().__init__(rule, fix, line)
        self.rule, self.fix, self.line = rule, fix, line


@dataclass(frozen=True)
class Text:
    """What a YAML text holds."""

    value: Any
    """None, bool, int, float, str, bytes, dates, lists, sets and dicts of these."""
    lines: Lines
    repeated: tuple[tuple[Location, int, int | None], ...]
    """Keys that stand twice, of which YAML would keep the last in silence: where, its line, the first one's."""


def read_text(text: str) -> Text:
    """Raises TextError."""
    if len(text) > MAX_CHARACTERS:
        raise TextError(f"is longer than {MAX_CHARACTERS:,} characters", "keep in a job what is a job's")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Text(None, {}, ())
        if _num_values(node, {}) > _MAX_VALUES:
            raise TextError(f"has more than {_MAX_VALUES:,} values once its aliases are written out", "do without them")
        lines, repeated = _read_lines(node)
        # Last, as it replaces merge keys (<<) within the node.
        return Text(_Loader("").construct_document(node), lines, tuple(repeated))
    except RecursionError as error:
        raise TextError("nests too deeply", "write it flatter") from error
    # ValueError: for such as 2020-13-45, which PyYAML takes for a date.
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        fix = "check indentation, quotes and colons there"
        raise TextError(f"is not valid YAML ({reason})", fix, mark.line + 1 if mark else None) from error


def write_text(value: Any) -> str:
    """YAML that `read_text` reads back as `value`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def unprintable_texts(value: Any, location: Location = (), walked: frozenset[int] = frozenset()) -> Iterator[Location]:
    """Where in `value` a text, or a key, holds characters that a terminal would obey."""
    if isinstance(value, str) and UNPRINTABLE.search(value):
        yield location
    if not isinstance(value, (dict, list)) or id(value) in walked:  # A list may hold itself.
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*location, key if isinstance(key, int) else str(key))
        if isinstance(key, str) and UNPRINTABLE.search(key):
            yield here
        yield from unprintable_texts(inner, here, walked | {id(value)})


def _num_values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values `node` is, every alias counted with all that it stands for; one that holds itself as 1."""
    if node not in known:
        known[node] = 1
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
        children += node.value if isinstance(node, yaml.SequenceNode) else []
        known[node] = 1 + sum(_num_values(child, known) for child in children)
    return known[node]


def _read_lines(root: yaml.Node) -> tuple[Lines, list[tuple[Location, int, int | None]]]:
    """The line of every key, and the keys that stand twice."""
    lines: Lines = {}
    repeated: list[tuple[Location, int, int | None]] = []
    walked: set[yaml.Node] = set()

    def walk(node: yaml.Node, location: Location) -> None:
        here: Location
        if node in walked:  # An alias: its mistakes stand where it is anchored. It may hold itself.
            return
        walked.add(node)
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                here = (*location, str(key_node.value))
                line = key_node.start_mark.line + 1
                if here in lines:
                    repeated.append((here, line, lines[here]))
                lines[here] = line
                walk(value_node, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                here = (*location, index)
                lines[here] = item.start_mark.line + 1
                walk(item, here)

    walk(root, ())
    return lines, repeated

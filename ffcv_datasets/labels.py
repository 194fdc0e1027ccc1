"""Labels and names of classes as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ffcv_datasets.samples import SourceError

_END = 2**63
"""Labels are stored as signed numbers of 64 bits."""


def label_of(value: object, numbers: Mapping[str, int] | None, *, where: str) -> int:
    """A label from its number, as number or text, or from its class's name. Raises SourceError.

    `numbers` holds the label of each class by its name; None where the classes have no names.
    """
    if isinstance(value, str) and numbers is not None and value in numbers:
        return numbers[value]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value)):
        known = "is no number; name the classes by classes=FILE" if numbers is None else "is none of the classes"
        raise SourceError(f"{where}: the label {value!r} {known}")
    assert isinstance(value, (int, str))
    end = _END if numbers is None else len(numbers)
    if not 0 <= int(value) < end:
        allowed = "0 or more" if numbers is None else f"in 0 .. {end - 1}, the classes'"
        raise SourceError(f"{where}: the label {value} is not {allowed}")
    return int(value)


def read_classes(path: Path) -> tuple[str, ...]:
    """Names in label order, one a line. Raises SourceError."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise SourceError(f"{path}: the names of the classes cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: the names of the classes are no UTF-8 text") from error
    if not names:
        raise SourceError(f"{path}: is empty; it must name one class a line, in the order of the labels")
    seen: set[str] = set()
    for line, name in enumerate(names, start=1):
        if not name or name in seen:
            what = f"has the class {name!r} twice" if name else "is empty"
            raise SourceError(f"{path}: line {line} {what}; each line names one class, in the order of the labels")
        seen.add(name)
    return names

"""What a value of a job file or site profile may be, and how an error says what is wrong with one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, JsonValue
from pydantic_core import PydanticCustomError

MIN_RESOLUTION_PX = 8
MAX_RESOLUTION_PX = 4096


def broken_rule(rule: str, *, fix: str, alternatives: tuple[str, ...] = ()) -> PydanticCustomError:
    """The error of a rule of ours: what was broken and what to write instead; `alternatives` are keys that would do.

    Rules are checked by field, those between two fields by the later one: a rule of the whole section would stay silent
    while any of its fields is wrong, and a user would learn of it only after mending that.
    """
    return PydanticCustomError("rule", "{rule}", {"rule": rule, "fix": fix, "alternatives": alternatives})


def _no_bool(value: Any) -> Any:
    """YAML's `yes` must not pass as the number 1."""
    if isinstance(value, bool):
        raise broken_rule("must be a number, not true or false", fix="write a number")
    return value


# Lax, so that a number in quotes passes, too.
Number = Annotated[float, Field(strict=False, allow_inf_nan=False), BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=MIN_RESOLUTION_PX, le=MAX_RESOLUTION_PX)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
# Any to type checkers, as it goes to a constructor that knows better.
Json = Annotated[Any, GetPydanticSchema(lambda _, handler: handler.generate_schema(JsonValue))]
Point = Annotated[tuple[Number, NonNegative], Field(strict=False)]
Rgb = Annotated[tuple[NonNegative, NonNegative, NonNegative], Field(strict=False)]


def _absolute(directory: str) -> str:
    if not directory.startswith(("/", "$")):
        raise broken_rule("must be an absolute path", fix=f"write /{directory}, or begin with a variable")
    return directory


NodeDirectory = Annotated[str, AfterValidator(_absolute)]
"""A directory on each node, whose `$VARIABLES` are those of the node's processes."""


def in_order(pair: tuple[float, float]) -> tuple[float, float]:
    """The least before the greatest, or an error."""
    low, high = pair
    if low > high:
        raise broken_rule("runs downwards", fix=f"use [{high:g}, {low:g}]")
    return pair


class Section(BaseModel):
    """A part of a job: strict keys and types, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

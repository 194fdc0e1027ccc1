"""What a job takes over from the one that it extends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = ("kind", "name")
"""The keys by which a section says what it is."""
_NAMED = ("model",)
"""Sections whose name does not decide which keys they have."""


def inherited(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `own` says instead: sections key by key, everything else, such as phases, whole.

    A section of another kind than the base's replaces it: a cosine has no use for a straight line's points.
    """
    merged = dict(base)
    for key, value in own.items():
        before = base.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and (key in _NAMED or _same_kind(before, value)):
            merged[key] = inherited(before, value)
        else:
            merged[key] = value
    return merged


def _same_kind(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return all(before.get(key) == after[key] for key in _KINDS if key in after)

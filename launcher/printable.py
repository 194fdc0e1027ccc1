"""Which characters may reach a terminal: others move its cursor, set its title, or reorder what is read. Pure."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), line and paragraph separators, marks that turn the direction of writing, surrogates.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with what a terminal would obey written as escapes, \\x1b; lines and tabs stay."""
    return UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return character if character in "\n\t" else character.encode("unicode_escape", "surrogatepass").decode("ascii")

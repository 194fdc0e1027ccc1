"""How plain lines are printed."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, line: str) -> None:
    """Print plain text: paths and numbers as they are, never broken into lines."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)

"""How plain lines and tables are printed."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 1000


def say(console: Console, line: str) -> None:
    """Print plain text: paths and numbers as they are, never broken into lines."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table; where its columns that may not wrap need more than the terminal's width, wider than that."""
    options = console.options.update(max_width=_ANY_WIDTH, markup=False)
    least = Measurement.get(console, options, table).minimum
    if least > console.width:
        table.width = least
    console.print(table, crop=False, markup=False)

"""How plain lines and tables are printed: what a terminal would obey is shown as an escape, wherever it came from."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from launcher.printable import printable

_ANY_WIDTH = 1000


def as_typed(path: Path) -> str:
    """As a user would type it from here, into a shell."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def say(console: Console, line: str) -> None:
    """Print plain text: paths and numbers as they are, never broken into lines."""
    console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table of texts, wider than the terminal if the columns that may not wrap need it: nothing is cut."""
    for column in table.columns:
        column._cells = [printable(str(cell)) for cell in column.cells]  # rich has no other way to change a cell.
        if column.no_wrap:
            lines = (line for text in (column.header, *column.cells) for line in str(text).splitlines())
            column.min_width = max(map(cell_len, lines))
    options = console.options.update(max_width=_ANY_WIDTH, markup=False)
    least = Measurement.get(console, options, table).minimum
    if least > console.width:
        table.width = least
    console.print(table, crop=False, markup=False)

"""What reaches a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from launcher.cli.console import say, show_table


def a_console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False), out


def test_a_line_from_elsewhere_cannot_clear_the_screen_or_set_its_title() -> None:
    console, out = a_console()
    say(console, "class \x1b[2J\x1b]0;owned\x07 and [bold]this[/bold]")
    assert out.getvalue() == "class \\x1b[2J\\x1b]0;owned\\x07 and [bold]this[/bold]\n"


def test_nor_can_a_cell_of_a_table() -> None:
    console, out = a_console()
    table = Table("phase")
    table.add_row("cat\x1b[31m\x9b2J")
    show_table(console, table)
    assert "cat\\x1b[31m\\x9b2J" in out.getvalue()
    assert not {"\x1b", "\x9b"} & set(out.getvalue())

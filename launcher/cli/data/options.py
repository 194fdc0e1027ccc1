"""Options that several of the data commands have, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes that encode; one per CPU core when absent.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
LevelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="PX,PX", help="Longest sides to store each image at, falling; crops read the smallest that serves."
    ),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Put restart markers into JPEG files, to skip what lies beside a crop.")
]


def sides_of(levels: str | None) -> list[int]:
    """ "500,256" -> [500, 256]"""
    try:
        return [int(side) for side in levels.split(",")] if levels else []
    except ValueError:
        raise typer.BadParameter(
            f"{levels!r} is not a list of pixels, such as 500,256", param_hint="--levels"
        ) from None


def settings_of(assignments: Sequence[str]) -> dict[str, str]:
    """["label=cls"] -> {"label": "cls"}"""
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals and value):
            hint = "put a pattern of several files into quotes, so that the shell leaves it whole"
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE; {hint}", param_hint="SETTINGS")
    return dict(assignment.split("=", 1) for assignment in assignments)

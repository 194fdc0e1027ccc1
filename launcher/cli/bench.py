"""`resolute bench`: what parts of this project cost on this machine, beside what others cost."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.cli.console import say, show_table

if TYPE_CHECKING:  # Heavy, so imported inside the commands.
    from launcher.decode_bench import Figure

app = typer.Typer(no_args_is_help=True, help="Measure on this machine what decoding costs, beside other loaders.")

_LEAST_SAMPLES = 440


class BenchError(ValueError):
    """A comparison that cannot be made as asked for."""


@app.command()
def decode(
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photographs to decode, in this folder or below; drawn ones when absent."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of figures, as JSON.")] = False,
    size: Annotated[
        list[int] | None, typer.Option(min=8, help="A crop's size in pixels; several may be given. 96 .. 288.")
    ] = None,
    loader: Annotated[list[str] | None, typer.Option(help="A loader to measure; several may be given. All.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each loader and size; their median counts.")] = 5,
) -> None:
    """Compare loaders: photographs of at most 500 px, at JPEG quality 90, to random crops of 8 % to 100 % of the area.

    ffcv, resolute on the same file, resolute-levels on a file with a smaller level and restart markers, torchvision
    (DataLoader and PIL), dali (on the CPU, where installed) and entropy: entropy decoding alone, the format's limit.
    A run's loaders take turns; the machine should have nothing else to do.

    Examples:

      resolute bench decode --images photos/

      resolute bench decode --images photos/ --size 128 --loader ffcv --loader resolute --json
    """
    from launcher.decode_bench import SIZES, compare
    from launcher.decode_loaders import LOADERS, write_files

    unknown = [name for name in loader or () if name not in LOADERS]
    if unknown:
        raise BenchError(f"--loader {unknown[0]}: there is none of this name; there are {', '.join(LOADERS)}")
    if images is not None and not images.is_dir():
        raise BenchError(f"--images {images}: there is no such folder")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="resolute-bench-") as folder:
        say(console, "writing the photographs ...")
        figures = compare(
            write_files(images, Path(folder), least_samples=_LEAST_SAMPLES),
            loaders=loader or list(LOADERS),
            sizes=size or SIZES,
            repeats=repeats,
            on_missing=lambda name, why: say(console, f"without {name}: {why}"),
            on_progress=lambda done, total: say(console, f"measuring size {done + 1} of {total} ..."),
        )
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=1))
    else:
        say(Console(), "CPU seconds for 1,000 images with 1 thread | images/s with 2 threads")
        show_table(Console(), _table(figures))


def _table(figures: list[Figure]) -> Table:
    """A row per size; for each loader CPU seconds for 1,000 images with one thread, and images/s with two."""
    loaders = list(dict.fromkeys(figure.loader for figure in figures))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("px", *loaders):
        table.add_column(heading, justify="right", no_wrap=True)
    by_place = {(figure.size, figure.loader): figure for figure in figures}
    for size in dict.fromkeys(figure.size for figure in figures):
        cells = [by_place[size, name] for name in loaders]
        table.add_row(str(size), *(f"{cell.cpu_s_per_1000:.2f} | {cell.images_per_s:,.0f}" for cell in cells))
    return table

"""`resolute data info` and `resolute data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import CardError, card_path, read_card
from ffcv_datasets.card import verify as compare_with_card
from launcher.cli.card_rows import card_rows, file_rows
from launcher.cli.console import say, show_table
from launcher.cli.errors import WRONG_INPUT
from launcher.cli.progress import num_cores, progress


def info(
    beton: Annotated[Path, typer.Argument(metavar="FILE.beton", help="The file to look at.")],
    check: Annotated[bool, typer.Option("--verify", help="Read the file and compare it with its card.")] = False,
) -> None:
    """Show a data set's card, or without one what the file itself tells.

    Example:

      resolute data info imagenet-500.train.beton --verify
    """
    card = read_card(beton)
    with Beton(beton) as opened:
        rows = card_rows(beton, card) if card else file_rows(opened)
        if card and opened.num_samples != card.num_samples:
            raise CardError(f"{beton}: holds {opened.num_samples:,} samples, its card says {card.num_samples:,}")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    show_table(Console(highlight=False), table)
    if check and card is None:
        raise CardError(f"{beton}: cannot be verified without {card_path(beton).name}; write the data again for one")
    if check and card:
        compare_with_card(beton, card)
        say(Console(), "verified: the file is what its card says, byte for byte")


def verify(
    beton: Annotated[Path, typer.Argument(metavar="FILE.beton", help="The file to read through.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one per CPU core when absent.")] = None,
) -> None:
    """Read every sample: its checksum, all of its JPEG, its size; list all that is wrong, and end with exit code 2.

    Files by FFCV hold no checksums: there only damage is found that keeps an image from being decoded.

    Example:

      resolute data verify imagenet-500.train.beton
    """
    from ffcv_datasets.verify import find_faults

    card = read_card(beton)
    with Beton(beton) as opened:
        if card and (opened.num_samples, beton.stat().st_size) != (card.num_samples, card.num_bytes):
            raise CardError(f"{beton}: is not the file that {card_path(beton).name} tells of; copy both again")
        with progress(Console(), "reading") as on_progress:
            faults = find_faults(opened, num_threads=workers or num_cores(), on_progress=on_progress)
        for fault in faults:
            say(Console(stderr=True), f"{beton}: {fault}")
        checked = "and equal to their checksums" if opened.footer else "(the file has no checksums)"
    if faults:
        num_samples = len({fault.sample for fault in faults})
        say(Console(stderr=True), f"resolute: {beton}: {num_samples:,} of {opened.num_samples:,} samples are damaged")
        raise typer.Exit(WRONG_INPUT)
    say(Console(), f"{beton}: all {opened.num_samples:,} samples are sound {checked}")

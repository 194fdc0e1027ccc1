"""`resolute data`: write a data set, look at one, draw one."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import CardError, card_path, read_card, verify
from launcher.cli.card_rows import card_rows, describe, file_rows
from launcher.cli.console import say, show_table
from launcher.cli.errors import FAILED
from launcher.durable import DiskFullError

app = typer.Typer(no_args_is_help=True, help="Write data sets as FFCV .beton files, look at them, draw them.")

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads that encode; one per CPU core when absent.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


@app.command()
def write(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="SRC/<class>/*.jpg, or SRC/train/<class>/ with val/, validation/ or test/."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.beton", help="The file to write.")],
    max_side: Annotated[
        int | None, typer.Option(min=1, help="Shrink images whose longer side has more pixels.")
    ] = None,
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of images that are encoded here.")] = 90,
    share_jpeg: Annotated[
        float, typer.Option(min=0, max=1, help="Share stored as JPEG; the rest is raw pixels.")
    ] = 1.0,
    keep_jpeg: Annotated[
        bool, typer.Option(help="Store upright RGB JPEG files that fit --max-side byte for byte, or encode them anew.")
    ] = True,
    workers: WorkersOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="List unreadable images and leave them out.")] = False,
    force: ForceOption = False,
) -> None:
    """Write a tree of class folders as OUT.beton, or its splits as OUT.train.beton and OUT.val.beton.

    Labels number the sorted class folders; those of val are train's. Any image becomes upright 8-bit RGB; transparent
    parts become white. Beside each file stands a card: classes, sizes, channel mean and std, checksum.

    Examples:

      resolute data write imagenet/ imagenet-500.beton --max-side 500

      resolute data write photos/ photos.beton --share-jpeg 0.5 --skip-bad
    """
    from ffcv_datasets.class_tree import list_splits
    from ffcv_datasets.picture import Encoding
    from ffcv_datasets.write import BadImagesError, split_path, write_betons

    encoding = Encoding(max_side=max_side, jpeg_quality=jpeg_quality, share_jpeg=share_jpeg, keep_jpeg=keep_jpeg)
    splits = list_splits(source)
    parts = [(split_path(out, name), tree) for name, tree in splits.items()]
    errors = Console(stderr=True)
    try:
        with _writing(out) as on_progress:
            written = write_betons(
                parts,
                encoding,
                num_threads=workers or _num_cores(),
                skip_bad=skip_bad,
                force=force,
                on_progress=on_progress,
            )
    except BadImagesError as error:
        for image in error.images:
            say(errors, str(image))
        raise
    num_ignored = sum(tree.num_ignored for tree in splits.values())
    if num_ignored:
        say(errors, f"ignored, being no images by their names: {num_ignored:,} files")
    for result in written:
        for image in result.skipped:
            say(errors, f"left out: {image}")
        say(Console(), describe(result.path, result.card))


@app.command()
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
        verify(beton, card)
        say(Console(), "verified: the file is what its card says, byte for byte")


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Where to put train.beton and val.beton.")],
    num_train: Annotated[int, typer.Option(min=1, help="Training images.")] = 4000,
    num_val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 1000,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the images, in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other images.")] = 0,
    workers: WorkersOption = None,
    force: ForceOption = False,
) -> None:
    """Draw a small data set whose classes are shapes with textures too fine for small sizes.

    Does nothing where the same set lies there already.

    Example:

      resolute data draw build/demo
    """
    from ffcv_datasets.picture import Encoding
    from ffcv_datasets.synthetic import DrawnSamples, is_drawn
    from ffcv_datasets.write import write_betons

    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (folder / "train.beton", DrawnSamples(seed, size, num_train)),
        (folder / "val.beton", DrawnSamples(seed, size, num_val, validation=True)),
    ]
    missing = [(path, samples) for path, samples in wanted if force or not is_drawn(path, samples)]
    if not missing:
        say(Console(), f"{folder}: train.beton and val.beton are there already, drawn with the same numbers")
        return
    with _writing(folder) as on_progress:
        written = write_betons(
            missing, Encoding(), num_threads=workers or _num_cores(), force=force, on_progress=on_progress
        )
    for result in written:
        say(Console(), describe(result.path, result.card))


@contextmanager
def _writing(target: Path) -> Iterator[Callable[[int, int], None]]:
    """Shows progress while data is written; an end signal and a full disk become what a person can read."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _progress(Console()) as on_progress:
            yield on_progress
    except KeyboardInterrupt:
        say(Console(stderr=True), f"stopped: {target} is as it was before")
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"{target}: the disk or your quota is full; nothing was kept of this write. Make room, or write elsewhere"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; else a line for every tenth that is done."""
    if not console.is_terminal:

        def show_line(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                say(console, f"{done:,} of {total:,} images")

        yield show_line
        return
    columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))

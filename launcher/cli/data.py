"""`resolute data`: write a data set, look at one, read one through, copy one, draw one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import CardError, card_path, read_card
from ffcv_datasets.card import verify as compare_with_card
from launcher.cli.card_rows import card_rows, describe, file_rows
from launcher.cli.console import say, show_table
from launcher.cli.errors import WRONG_INPUT
from launcher.cli.progress import num_cores, progress, writing

app = typer.Typer(
    no_args_is_help=True, help="Write data sets as FFCV .beton files, look at them, verify, repack and draw them."
)

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Threads that encode; one per CPU core when absent.")]
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
        bool, typer.Option(help="Keep upright RGB JPEG files that fit --max-side, or encode them anew.")
    ] = True,
    levels: LevelsOption = None,
    restart: RestartOption = False,
    workers: WorkersOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="List unreadable images and leave them out.")] = False,
    force: ForceOption = False,
) -> None:
    """Write a tree of class folders as OUT.beton, or its splits as OUT.train.beton and OUT.val.beton.

    Labels number the sorted class folders; those of val are train's. Any image becomes upright 8-bit RGB; transparent
    parts become white. Beside each file stands a card: classes, sizes, channel mean and std, checksum.

    Levels and restart markers make loading faster, most of all at small resolutions; FFCV reads such files as any
    other. The first of --levels is --max-side, unless that is given.

    Examples:

      resolute data write imagenet/ imagenet-500.beton --levels 500,256 --restart

      resolute data write photos/ photos.beton --share-jpeg 0.5 --skip-bad
    """
    from ffcv_datasets.class_tree import list_splits
    from ffcv_datasets.picture import Encoding
    from ffcv_datasets.write import BadImagesError, split_path, write_betons

    sides = _sides(levels)
    if sides and max_side in (None, sides[0]):
        max_side, *sides = sides
    encoding = Encoding(
        max_side=max_side,
        jpeg_quality=jpeg_quality,
        share_jpeg=share_jpeg,
        keep_jpeg=keep_jpeg,
        further_sides=tuple(sides),
        restart=restart,
    )
    splits = list_splits(source)
    parts = [(split_path(out, name), tree) for name, tree in splits.items()]
    errors = Console(stderr=True)
    try:
        with writing(out) as on_progress:
            written = write_betons(
                parts,
                encoding,
                num_workers=workers or num_cores(),
                skip_bad=skip_bad,
                force=force,
                on_note=partial(say, errors),
                on_progress=on_progress,
            )
    except BadImagesError as error:
        for image in error.images:
            say(errors, str(image))
        raise
    for note in (note for tree in splits.values() for note in tree.notes):
        say(errors, note)
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
        compare_with_card(beton, card)
        say(Console(), "verified: the file is what its card says, byte for byte")


@app.command()
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


@app.command()
def repack(
    source: Annotated[Path, typer.Argument(metavar="IN.beton", help="Any .beton file, by FFCV or by Resolute.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.beton", help="The file to write.")],
    levels: LevelsOption = None,
    restart: RestartOption = False,
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of the further levels.")] = 90,
    workers: WorkersOption = None,
    force: ForceOption = False,
) -> None:
    """Copy a file and give it further levels, restart markers and checksums. What FFCV reads keeps every pixel.

    Sides that no image exceeds are the first level's own. All fields are copied.

    Example:

      resolute data repack imagenet.beton imagenet-levels.beton --levels 500,256 --restart
    """
    from ffcv_datasets.repack import DamagedSamplesError
    from ffcv_datasets.repack import repack as copy
    from ffcv_datasets.write import split_path

    errors = Console(stderr=True)
    try:
        with writing(out) as on_progress:
            card = copy(
                source,
                split_path(out, ""),
                sides=_sides(levels) if levels else None,
                restart=restart,
                jpeg_quality=jpeg_quality,
                num_workers=workers or num_cores(),
                force=force,
                on_note=partial(say, errors),
                on_progress=on_progress,
            )
    except DamagedSamplesError as error:
        for sample in error.samples:
            say(errors, f"{source}: {sample}")
        raise
    say(Console(), describe(out, card))


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
    with writing(folder) as on_progress:
        written = write_betons(
            missing, Encoding(), num_workers=workers or num_cores(), force=force, on_progress=on_progress
        )
    for result in written:
        say(Console(), describe(result.path, result.card))


def _sides(levels: str | None) -> list[int]:
    """ "500,256" -> [500, 256]"""
    try:
        return [int(side) for side in levels.split(",")] if levels else []
    except ValueError:
        raise typer.BadParameter(
            f"{levels!r} is not a list of pixels, such as 500,256", param_hint="--levels"
        ) from None

"""`resolute data write`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.cli.card_rows import describe
from launcher.cli.console import say
from launcher.cli.data.options import (
    ForceOption,
    LevelsOption,
    RestartOption,
    WorkersOption,
    settings_of,
    sides_of,
)
from launcher.cli.progress import num_cores, writing


def write(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A folder, tar shards, torchvision:NAME, huggingface:DIR.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.beton", help="The file to write.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="What the source takes.")] = None,
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
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a torchvision data set that is not there.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write images as OUT.beton, or their splits as OUT.train.beton and
    OUT.val.beton.

    Any image becomes upright 8-bit RGB; transparent parts become white. Beside
    each file stands a card: classes, sizes, channel mean and std, checksum. A
    write that was stopped, even killed, goes on when the same command is given
    again.

    Levels and restart markers make loading faster, most of all at small
    resolutions; FFCV reads such files as any other. The first of --levels is
    --max-side, unless that is given.

    [bold]Sources, and what they take[/bold]

    IMAGES
    The folders IMAGES/CLASS/ are the classes, numbered in the order of their
    names; with IMAGES/train/CLASS/ and val/, validation/ or test/ both splits
    are written.

    IMAGES masks=DIR boxes=FILE.json
    One or both: DIR/x.png, palette or greyscale, is the mask of IMAGES/x.jpg;
    boxes are in COCO's format.

    SHARDS.tar label=cls classes=FILE image=jpg mask=seg.png
    WebDataset shards: a file, a folder, a pattern. All settings may be left
    out. label=json:KEY takes a value of a JSON member, classes=FILE names a
    class a line, endings say which member is the image and which the mask.

    torchvision:NAME root=DIR split=train
    A data set that lies in DIR or is fetched by --download, with its own
    arguments.

    huggingface:DIR image=COLUMN label=COLUMN mask=COLUMN split=NAME classes=FILE
    Saved by save_to_disk, or a folder of Parquet files or of images. All
    settings may be left out.

    [bold]Examples[/bold]

      resolute data write imagenet/ imagenet.beton --levels 500,256 --restart

      resolute data write photos/ photos.beton --share-jpeg 0.5 --skip-bad

      resolute data write 'a-{000..146}.tar' a.beton classes=names.txt

      resolute data write VOC/JPEGImages voc.beton masks=VOC/SegmentationClass

      resolute data write coco/val2017 coco.beton boxes=instances_val2017.json

      resolute data write torchvision:CIFAR10 cifar.beton root=data --download
    """
    from ffcv_datasets.picture import Encoding
    from ffcv_datasets.sources import open_source
    from ffcv_datasets.write import BadImagesError, split_path, write_betons

    sides = sides_of(levels)
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
    split_path(out, "")  # a wrong name is told before a long list is made
    errors = Console(stderr=True)
    try:
        with writing(out) as on_progress:
            splits = open_source(source, settings_of(settings or []), download=download)
            written = write_betons(
                [(split_path(out, name), samples) for name, samples in splits.items()],
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
    for note in (note for samples in splits.values() for note in samples.notes):
        say(errors, note)
    for result in written:
        for image in result.skipped:
            say(errors, f"left out: {image}")
        say(Console(), describe(result.path, result.card))

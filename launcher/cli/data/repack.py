"""`resolute data repack`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.cli.card_rows import describe
from launcher.cli.console import say
from launcher.cli.data.options import ForceOption, LevelsOption, RestartOption, WorkersOption, sides_of
from launcher.cli.progress import num_cores, writing


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
                sides=sides_of(levels) if levels else None,
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

"""`resolute data draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.cli.card_rows import describe
from launcher.cli.console import say
from launcher.cli.data.options import ForceOption, WorkersOption
from launcher.cli.progress import num_cores, writing


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

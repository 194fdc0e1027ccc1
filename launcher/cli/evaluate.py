"""`resolute evaluate`: a run's accuracy at one size after the other, as a table and a curve."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.cli.console import say, show_table
from launcher.config import MAX_RESOLUTION_PX, MIN_RESOLUTION_PX
from launcher.durable import write_atomically
from launcher.paths import RunPaths
from launcher.plots import Curve, Panel, try_to_draw

if TYPE_CHECKING:  # Heavy, so imported inside the command.
    from launcher.size_sweep import SizeScores
    from launcher.trained_model import TrainedModel


class EvaluationError(ValueError):
    """An evaluation that cannot be made as asked for."""


def evaluate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run.")],
    sizes: Annotated[
        str | None,
        typer.Option(metavar="PX,PX,...", help="Sizes; from below the training size to twice it when absent."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="One of the run's checkpoints; its final weights when absent.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="VAL.beton", help="The data to judge by; the job's data.val when absent.")
    ] = None,
    crop_ratio: Annotated[
        float | None,
        typer.Option(help="The centre crop's side as a share of the shorter side; the job's when absent."),
    ] = None,
) -> None:
    """Judge a run's model at several sizes, every image once, and draw the curve.

    In one process, on the first GPU if there is one. Table and curve are kept in the run directory.

    Examples:

      resolute evaluate runs/first --sizes 128,160,192,224,256,288

      resolute evaluate runs/first --checkpoint e00030-s000000000 --crop-ratio 1
    """
    from launcher.size_sweep import default_sizes, sweep
    from launcher.trained_model import load_trained

    paths, console = RunPaths(run_dir.absolute()), Console()
    trained = load_trained(paths, _find_checkpoint(paths, checkpoint))
    settings = trained.job.evaluation
    if crop_ratio is not None:
        if not 0 < crop_ratio <= 1:
            raise EvaluationError(f"--crop-ratio {crop_ratio:g}: is a share, more than 0 and at most 1")
        settings = settings.model_copy(update={"crop_ratio": crop_ratio})
    wanted = default_sizes(trained.train_resolution) if sizes is None else _parse_sizes(sizes)
    judged_by = val_data(trained, data).absolute()
    say(console, f"{trained.job.name}: {trained.source.name}, trained at {trained.train_resolution} px at last")
    swept: list[SizeScores] = []
    try:
        for at in sweep(trained, judged_by, wanted, settings=settings):
            swept.append(at)
            say(console, f"  {at.resolution} px: top-1 {at.scores.top1:.2%}")
    finally:  # A size that does not fit, or a Ctrl-C, takes none of those before it away.
        if swept:
            _keep(swept, trained, judged_by, crop_ratio=settings.crop_ratio, path=paths.evaluation, console=console)


def _keep(
    swept: list[SizeScores],
    trained: TrainedModel,
    judged_by: Path,
    *,
    crop_ratio: float,
    path: Path,
    console: Console,
) -> None:
    """Show the scores, write them to `path`, and draw them beside it."""
    show_table(console, scores_table(swept))
    kept = {
        "source": trained.source.name,
        "data": str(judged_by),
        "crop_ratio": crop_ratio,
        "sizes": [at.to_json() for at in swept],
    }
    write_atomically(path, json.dumps(kept, indent=1) + "\n")
    sizes = [at.resolution for at in swept]
    panel = Panel(
        "size in px",
        "top-1 in %",
        [Curve(trained.source.name, sizes, [100 * at.scores.top1 for at in swept])],
        vertical=(trained.train_resolution, f"trained at {trained.train_resolution} px"),
        x_ticks=sizes,
    )
    plot = path.with_suffix(".png")
    try_to_draw(plot, [panel], title=trained.job.name, tell=lambda line: say(console, line))


def scores_table(swept: list[SizeScores]) -> Table:
    """A row per size."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("px", "images", "top-1", "top-5", "loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    for at in swept:
        scores = at.scores
        cells = (f"{scores.samples:,}", f"{scores.top1:.2%}", f"{scores.top5:.2%}", f"{scores.loss:.4f}")
        table.add_row(str(at.resolution), *cells)
    return table


def _parse_sizes(text: str) -> list[int]:
    """Raises EvaluationError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and MIN_RESOLUTION_PX <= int(word) <= MAX_RESOLUTION_PX for word in words):
        rule = f"is not a list of sizes from {MIN_RESOLUTION_PX} to {MAX_RESOLUTION_PX} px, such as 128,160,192"
        raise EvaluationError(f"--sizes {shlex.quote(text)}: {rule}")
    return sorted({int(word) for word in words})


def _find_checkpoint(paths: RunPaths, name: str | None) -> Path | None:
    """Raises EvaluationError naming those that there are."""
    if name is None:
        return None
    path = paths.checkpoints / name
    if not path.is_dir() or path.parent != paths.checkpoints:
        known = sorted(entry.name for entry in paths.checkpoints.glob("e*")) if paths.checkpoints.is_dir() else []
        raise EvaluationError(f"--checkpoint {name}: there are {', '.join(known) or 'none'} in {paths.checkpoints}")
    return path


def val_data(trained: TrainedModel, given: Path | None) -> Path:
    """Raises EvaluationError."""
    path = given or (Path(trained.job.data.val) if trained.job.data.val else None)
    if path is None:
        raise EvaluationError("the job has no data.val; give the data to judge by as --data VAL.beton")
    if not path.is_file():
        raise EvaluationError(f"{path}: there is no such file; give the data to judge by as --data VAL.beton")
    return path

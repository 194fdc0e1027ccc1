"""`resolute fixres`: fit a finished run's model to the size it will be used at, and show what that gains."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.cli.console import as_typed, say, show_table
from launcher.cli.evaluate import val_data
from launcher.cli.run import Mode, ModeOption, WorkersOption, carry_out
from launcher.config import MAX_RESOLUTION_PX, MIN_RESOLUTION_PX, JobConfig, Trainable
from launcher.durable import write_atomically
from launcher.fixres import EPOCHS, LEARNING_RATE, fixres_job
from launcher.ownership import State, state_of
from launcher.paths import RunPaths

if TYPE_CHECKING:  # Heavy, so imported inside the command.
    from launcher.size_sweep import SizeScores


class FixresError(ValueError):
    """A run whose model cannot be fitted."""


def fixres(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a finished run.")],
    size: Annotated[
        int, typer.Option(min=MIN_RESOLUTION_PX, max=MAX_RESOLUTION_PX, help="Size to fit the model to, in pixels.")
    ],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to fit it for.")] = EPOCHS,
    lr: Annotated[float, typer.Option(help="Learning rate for a global batch of 512.")] = LEARNING_RATE,
    blocks: Annotated[
        int | None, typer.Option(min=1, help="Train so many of the last blocks, not the last norm alone.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the new run. RUN_DIR-fixres-SIZE when absent.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="VAL.beton", help="The data to judge by; the job's data.val when absent.")
    ] = None,
    mode: ModeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Fine-tune classifier and last norm at a test size, on centre crops (FixRes, Touvron et al. 2019).

    A run of its own, which starts from RUN_DIR's model: stopped, it goes on by the same command. Afterwards a table of
    the accuracies before and after.

    Examples:

      resolute fixres runs/first --size 288

      resolute fixres runs/first --size 288 --blocks 1 --epochs 11
    """
    from launcher.size_sweep import sweep
    from launcher.trained_model import load_trained

    if not (math.isfinite(lr) and lr > 0):
        raise FixresError(f"--lr {lr:g}: is a learning rate, a number above 0; {LEARNING_RATE:g} when absent")
    paths, console = RunPaths(run_dir.absolute()), Console()
    _require_finished(paths, run_dir)
    trained = load_trained(paths)
    trainable: Trainable = blocks or "classifier_and_last_norm"
    judged_by = val_data(trained, data).absolute()
    job = fixres_job(trained.job, size=size, weights=paths.model, epochs=epochs, learning_rate=lr, trainable=trainable)
    run = {name: value for name, value in (("mode", _text(mode)), ("workers", workers)) if value is not None}
    job = job.model_copy(
        update={
            "run": job.run.model_copy(update=run),
            "data": job.data.model_copy(update={"val": str(judged_by)}),
        }
    )
    fitted = RunPaths((out or paths.root.with_name(f"{paths.root.name}-fixres-{size}")).absolute())
    _fit(job, paths, fitted, console)
    # Both only now, so that this process has taken no GPU's memory from the workers.
    sizes, settings = sorted({trained.train_resolution, size}), trained.job.evaluation
    before = list(sweep(trained, judged_by, sizes, settings=settings))
    after = list(sweep(load_trained(fitted), judged_by, sizes, settings=settings))
    show_table(console, before_and_after(before, after))
    kept = {"data": str(judged_by), "before": [at.to_json() for at in before], "after": [at.to_json() for at in after]}
    write_atomically(fitted.fixres, json.dumps(kept, indent=1) + "\n")
    say(console, f"model        {fitted.model}")


def _require_finished(paths: RunPaths, run_dir: Path) -> None:
    """Raises FixresError for a run without its final weights."""
    from launcher.run_directory import read_owner

    if paths.model.is_file() or not paths.job.is_file():  # Without a job it is no run, as its reader says.
        return
    owner = read_owner(paths)
    if owner is not None and state_of(owner) is not State.GONE:
        raise FixresError(f"{run_dir} is not finished: {owner} is at it; give this command again when it is")
    raise FixresError(f"{run_dir} is not finished; `resolute resume {as_typed(paths.root)}` first")


def _fit(job: JobConfig, paths: RunPaths, fitted: RunPaths, console: Console) -> None:
    try:
        carry_out(job, source=str(paths.job), root=fitted.root)
    except typer.Exit:
        say(console, "or by the same command as now, which then shows the table, too")
        raise


def _text(mode: Mode | None) -> str | None:
    return mode.value if mode else None


def before_and_after(before: list[SizeScores], after: list[SizeScores]) -> Table:
    """A row per size."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("px", "top-1\nbefore", "top-1\nafter", "gain", "top-5\nbefore", "top-5\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    for old, new in zip(before, after, strict=True):
        table.add_row(
            str(old.resolution),
            f"{old.scores.top1:.2%}",
            f"{new.scores.top1:.2%}",
            f"{100 * (new.scores.top1 - old.scores.top1):+.2f}",
            f"{old.scores.top5:.2%}",
            f"{new.scores.top5:.2%}",
        )
    return table

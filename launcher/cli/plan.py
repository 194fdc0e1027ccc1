"""`resolute plan`: what a job will do, epoch by epoch, and what it saves, before a GPU is claimed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ffcv_datasets.card import Card, read_card
from launcher.cli.console import say, show_table
from launcher.config import Data, JobConfig
from launcher.data_facts import count_samples, known_num_classes
from launcher.job_file import load_job
from launcher.plan import EpochSpec, Plan
from launcher.planning import build_plan, feasible_world, resolutions

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a recipe in jobs/.")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as learning_rate.base=0.1."),
]


class Format(str, Enum):
    TABLE = "table"
    JSON = "json"


def plan(
    job: JobArgument,
    overrides: OverridesArgument = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers; the job's when absent.")] = None,
    output: Annotated[Format, typer.Option("--format", help="A table to read, or JSON.")] = Format.TABLE,
    measure: Annotated[
        bool, typer.Option("--measure", help="Count the model's FLOPs at each size instead of the area rule.")
    ] = False,
    compare_scaling: Annotated[
        bool,
        typer.Option("--compare-scaling", help="Show what deeper and wider models cost at the last size, instead."),
    ] = False,
) -> None:
    """Print the plan: one row per epoch, and the cost against the same epochs at the last resolution.

    Examples:

      resolute plan jobs/imagenet-rn50-16.yaml --workers 8

      resolute plan my-job.yaml phases.0.epochs=10 --format json | jq .totals
    """
    config = load_job(job, overrides or ())
    if compare_scaling:
        show_table(Console(), scaling_table(config))
        return
    num_samples = count_samples(config, source=job)
    world_size = workers or feasible_world(config, num_samples=num_samples, available=config.run.most_workers)
    flops = _measure(config) if measure else None
    laid_out = build_plan(config, num_samples=num_samples, world_size=world_size, flops=flops)
    card = read_card(Path(config.data.train)) if config.data.train else None
    reading = plan_reading(laid_out, card) if card else []
    staging = plan_staging(config.data)
    if output is Format.JSON:
        plain = laid_out.to_json() | {"reading": [dataclasses.asdict(epoch) for epoch in reading]}
        plain |= {"staging": dataclasses.asdict(staging) if staging else None}
        typer.echo(json.dumps(plain, indent=1))
    else:
        console = Console()
        show_plan(laid_out, title=config.name, console=console)
        for epoch in reading:
            say(console, f"reads {epoch}")
        if staging:
            say(console, str(staging))


def scaling_table(config: JobConfig) -> Table:
    """The job's model beside its family, at its last training size: what depth, width and resolution cost."""
    from launcher.models import compare_scaling

    resolution = resolutions(config)[-1]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"at {resolution} px", no_wrap=True)
    for heading in ("layers", "mean\nchannels", "GFLOPs", "times", f"{config.model.name}\ncosts as much at"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in compare_scaling(config.model, num_classes=known_num_classes(config), resolution=resolution):
        table.add_row(
            one.name,
            str(one.layers),
            f"{one.mean_channels:.0f}",
            f"{one.flops / 1e9:.3g}",
            f"{one.times:.2f}",
            f"{one.same_cost_px} px",
        )
    return table


@dataclass(frozen=True)
class EpochReading:
    """What an epoch at one size reads of the training file, reckoned from its card."""

    resolution: int
    level_shares: dict[int, float]
    """Longest side in pixels of a stored level -> share of the crops that read it."""
    bytes_per_epoch: int

    def __str__(self) -> str:
        levels = ", ".join(f"{share:.0%} at {side} px" for side, share in self.level_shares.items() if share >= 0.005)
        return f"{self.bytes_per_epoch / 1e6:,.1f} MB an epoch at {self.resolution} px: {levels}"


def plan_reading(plan: Plan, card: Card) -> list[EpochReading]:
    """For each size and crop that the plan trains with; nothing if the card does not tell how long the images are."""
    from ffcv_datasets.reading_cost import bytes_per_epoch, level_shares

    reading = []
    first = max(card.width.max, card.height.max)
    sides = [first, *(level.max_side for level in card.further_levels)]
    for resolution, scale, ratio in dict.fromkeys((row.resolution, *_crops(row, card)) for row in plan.rows):
        num_bytes = bytes_per_epoch(card, resolution, scale, ratio)
        if num_bytes is not None:
            shares = dict(zip(sides, level_shares(card, resolution, scale, ratio), strict=True))
            reading.append(EpochReading(resolution, shares, num_bytes))
    return reading


def _crops(row: EpochSpec, card: Card) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least and greatest share of the area, and width / height, of an epoch's crops of an image of the mean size."""
    if row.centre_crop is None:
        return row.crop_scale, row.crop_ratio
    short, long = sorted((card.height.mean, card.width.mean))
    share = row.centre_crop**2 * short / long
    return (share, share), (1.0, 1.0)


@dataclass(frozen=True)
class Staging:
    """What is copied to each node's own disk before training."""

    directory: str
    num_bytes: int | None
    """None where the files are not at hand."""

    def __str__(self) -> str:
        size = f"{self.num_bytes / 1e6:,.1f} MB" if self.num_bytes is not None else "its data"
        return f"stages {size} to {self.directory} on each node"


def plan_staging(data: Data) -> Staging | None:
    """None if the job reads its data from where it lies."""
    if data.stage is None:
        return None
    files = [Path(path) for path in (data.train, data.val) if path]
    at_hand = files and all(path.is_file() for path in files)
    return Staging(data.stage, sum(path.stat().st_size for path in files) if at_hand else None)


def _measure(config: JobConfig) -> dict[int, float]:
    from launcher.models import measure_flops

    return measure_flops(config.model, num_classes=known_num_classes(config), resolutions=resolutions(config))


def show_plan(plan: Plan, *, title: str, console: Console) -> None:
    """Print the table and the totals."""
    show_table(console, plan_table(plan, title=title))
    further = further_table(plan)
    if further is not None:
        show_table(console, further)
    totals = plan.totals
    rule = "the model's FLOPs" if totals.cost_rule == "flops" else "the area rule"
    against = f"saves {totals.saving:.0%} against" if totals.saving >= 0 else f"{-totals.saving:.0%} more than"
    say(
        console,
        f"{totals.epochs} epochs, {totals.steps:,} steps, {totals.samples:,} samples "
        f"({totals.dropped_samples:,} dropped in incomplete batches)",
    )
    say(
        console,
        f"costs {totals.cost:.2f} epochs at {plan.rows[-1].resolution} px by {rule}: "
        f"{against} all {totals.epochs} at that size",
    )


@dataclass(frozen=True)
class _Column:
    """Of the table of what else is done to images and model."""

    heading: str
    cell: Callable[[EpochSpec], str]
    usual: str = ""
    """The cell that says nothing of a job: a column of it alone is left out."""


def _trains_cell(row: EpochSpec) -> str:
    if isinstance(row.trainable, int):
        return f"last {row.trainable} block" + "s" * (row.trainable > 1)
    return "classifier+norm" if row.trainable == "classifier_and_last_norm" else row.trainable


def _crop_cell(row: EpochSpec) -> str:
    if row.centre_crop is not None:
        return f"centre {row.centre_crop:.3g}"
    return "{:.3g}-{:.3g}".format(*row.crop_scale)


def _norm_cell(row: EpochSpec) -> str:
    return f"{row.recalibration_batches} batches" if row.recalibration_batches else "frozen" * row.norm_frozen


def _augment_cell(row: EpochSpec) -> str:
    return f"{row.magnitude:.3g}" if row.magnitude is not None else "random" if row.policy else ""


def _number(name: str) -> Callable[[EpochSpec], str]:
    """A cell with the row's number of that name, empty if it has none."""
    return lambda row: f"{getattr(row, name):.3g}" if getattr(row, name) else ""


_FURTHER = (
    _Column("trains", _trains_cell, usual="all"),
    _Column("crop", _crop_cell, usual="0.08-1"),
    _Column("norm", _norm_cell),
    _Column("augment", _augment_cell),
    _Column("mixup", _number("mixup_alpha")),
    _Column("cutmix", _number("cutmix_alpha")),
    _Column("erase", _number("erasing_probability")),
    _Column("dropout", _number("dropout")),
    _Column("depth\ndrop", _number("stochastic_depth")),
)


def further_table(plan: Plan) -> Table | None:
    """What else is done to images and model: a row wherever it changes; None if nothing unusual is done."""
    columns = [column for column in _FURTHER if any(column.cell(row) != column.usual for row in plan.rows)]
    if not columns:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("from\nepoch", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    before: list[str] = []
    for row in plan.rows:
        cells = [column.cell(row) for column in columns]
        if cells != before:
            table.add_row(str(row.epoch), *cells)
        before = cells
    return table


def plan_table(plan: Plan, *, title: str) -> Table:
    """One row per epoch; a rule between phases."""
    workers = f"{plan.world_size} worker" + ("s" if plan.world_size > 1 else "")
    title = f"{title}: {plan.num_samples:,} samples, {workers}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("phase", min_width=8, overflow="fold")
    for heading in ("px", "batch/\nworker", "global\nbatch", "steps", "drop", "LR", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in plan.rows:
        last_of_phase = row.epoch + 1 == len(plan.rows) or plan.rows[row.epoch + 1].phase != row.phase
        table.add_row(
            str(row.epoch),
            row.phase_name,
            str(row.resolution),
            str(row.batch_per_worker) if row.accumulate == 1 else f"{row.accumulate} x {row.batch_per_worker}",
            str(row.global_batch),
            f"{row.steps:,}",
            str(row.dropped_samples),
            f"{row.lr_start:.3g} -> {row.lr_end:.3g}",
            f"{row.relative_cost:.2f}",
            end_section=last_of_phase,
        )
    return table

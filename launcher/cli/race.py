"""`resolute race`: a job against its twin of one size, leg by leg on the same workers."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.attempts import NotUpError, RunFailedError
from launcher.cli.batch_size import settle
from launcher.cli.console import say, show_table
from launcher.cli.errors import FAILED
from launcher.cli.plan import JobArgument, OverridesArgument
from launcher.cli.run import ModeOption, WorkersOption, carry_out, flags
from launcher.config import JobConfig
from launcher.data_facts import count_samples, known_num_classes
from launcher.durable import write_atomically
from launcher.event_log import read_events
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.plan import Plan
from launcher.planning import build_plan, feasible_world, resolutions
from launcher.plots import Curve, Panel, try_to_draw
from launcher.race import (
    Course,
    Jump,
    Spread,
    Standing,
    TimeTo,
    by_name,
    course,
    fixed_twin,
    mean_jumps,
    squeezed,
    standings,
    times_to,
)

PROGRESSIVE, FIXED, EQUAL_COST = "progressive", "fixed", "fixed-equal-cost"


class RaceError(ValueError):
    """A race that cannot be run as asked for."""


@dataclass(frozen=True)
class Contestant:
    name: str
    job: JobConfig
    plan: Plan
    """With the model's FLOPs for costs, in epochs at the job's last size."""


def race(
    job: JobArgument,
    overrides: OverridesArgument = None,
    equal_cost: Annotated[
        bool, typer.Option("--equal-cost", help="Run the twin in as many epochs as cost what the job costs, too.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the job's on.")] = 1,
    run_dir: Annotated[
        Path | None, typer.Option(help="Directory of the race, a run in it for each leg. runs/NAME-race when absent.")
    ] = None,
    mode: ModeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Run a job and its twin, which trains at the last size throughout, and compare them.

    One after the other on the same workers, with the same seeds, global batches and learning rates. A table and a plot
    of accuracy over time and over cost, and the time to each accuracy. Stopped, the same command goes on. A leg that
    fails, as by diverging, is told and left out, and the others run all the same; the exit code is 1 then.

    Examples:

      resolute race cifar10-cpu data.train=cifar10.train.beton data.val=cifar10.val.beton --seeds 3

      resolute race my-job.yaml --equal-cost --run-dir runs/worth-it
    """
    config = load_job(job, [*(overrides or ()), *flags(mode, workers)])
    if config.data.val is None:
        raise RaceError("a race is about accuracy: give data.val=VAL.beton")
    console = Console()
    root = (run_dir or Path("runs") / f"{config.name}-race").absolute()
    contestants = _contestants(config, source=job, root=root, console=console, equal_cost=equal_cost)
    courses: list[Course] = []
    failed: dict[str, str] = {}
    for seed in range(config.seed, config.seed + seeds):
        for contestant in contestants:
            leg = RunPaths(root / f"{contestant.name}-seed{seed}")
            say(console, f"\nleg {leg.root.name} of {len(contestants) * seeds}")
            failure = _run_leg(contestant.job.model_copy(update={"seed": seed}), job, leg, console)
            if failure is not None:
                failed[leg.root.name] = failure
                continue
            courses.append(course(read_events(leg.events), contestant.plan, name=contestant.name, seed=seed))
    _conclude(courses, failed, root, title=config.name, console=console)
    if failed:
        raise typer.Exit(FAILED)


def _contestants(config: JobConfig, *, source: str, root: Path, console: Console, equal_cost: bool) -> list[Contestant]:
    from launcher.models import measure_flops

    first = RunPaths(root / f"{PROGRESSIVE}-seed{config.seed}")
    config = settle(config, source=source, paths=first, console=console)
    num_samples = count_samples(config, source=source)
    available = 1 if config.run.mode == "single" else config.run.most_workers
    world_size = feasible_world(config, num_samples=num_samples, available=available)
    flops = measure_flops(config.model, num_classes=known_num_classes(config), resolutions=resolutions(config))

    def contestant(name: str, job: JobConfig) -> Contestant:
        plan = build_plan(job, num_samples=num_samples, world_size=world_size, flops=flops)
        return Contestant(name, job, plan)

    progressive = contestant(PROGRESSIVE, config)
    twin = fixed_twin(config, world_size=world_size)
    contestants = [progressive, contestant(FIXED, twin)]
    if equal_cost:
        epochs = max(1, round(progressive.plan.totals.cost))
        contestants.append(contestant(EQUAL_COST, squeezed(twin, epochs=epochs)))
    if resolutions(config) == resolutions(twin):
        raise RaceError(f"{source} trains at one size throughout: it is its own twin")
    return contestants


def _run_leg(job: JobConfig, source: str, leg: RunPaths, console: Console) -> str | None:
    """Carry a leg out; why it failed, if that is its own affair. What would befall any leg is raised."""
    from launcher.trainer import NonFiniteLossError

    try:
        carry_out(job, source=source, root=leg.root)
    except typer.Exit:
        say(console, "the race goes on by the same command")
        raise
    except NotUpError:
        raise
    except (NonFiniteLossError, RunFailedError) as error:
        say(console, f"{leg.root.name} failed: {error}")
        return str(error)
    return None


def _conclude(courses: list[Course], failed: dict[str, str], root: Path, *, title: str, console: Console) -> None:
    told, times, jumps = standings(courses), times_to(courses), mean_jumps(by_name(courses).get(PROGRESSIVE, []))
    say(console, "")
    show_table(console, _standings_table(told, failed))
    if courses:
        show_table(console, _times_table(times, [standing.name for standing in told]))
        show_table(console, _jumps_table(jumps))
    for leg, failure in failed.items():
        say(console, f"{leg} failed: {failure}")
    kept = {
        "standings": [asdict(standing) for standing in told],
        "times": [asdict(time) for time in times],
        "courses": [leg.to_json() for leg in courses],
        "failed": failed,
    }
    write_atomically(root / "race.json", json.dumps(kept, indent=1) + "\n")
    panels = [
        Panel(axis, "top-1 in %", [_curve(name, legs, at) for name, legs in by_name(courses).items()])
        for axis, at in (("seconds of training", "seconds"), ("cost of training, in epochs at the last size", "cost"))
    ]
    if courses:
        try_to_draw(root / "race.png", panels, title=title, tell=lambda line: say(console, line))


def _curve(name: str, legs: list[Course], at: str) -> Curve:
    """The mean over seeds, within the lowest and the highest."""
    top1 = list(zip(*([100 * point.top1 for point in leg.points] for leg in legs), strict=True))
    place = list(zip(*([getattr(point, at) for point in leg.points] for leg in legs), strict=True))
    return Curve(
        name,
        x=[sum(values) / len(values) for values in place],
        y=[sum(values) / len(values) for values in top1],
        low=[min(values) for values in top1],
        high=[max(values) for values in top1],
    )


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _standings_table(told: list[Standing], failed: Collection[str]) -> Table:
    table = _table("", "seeds", "top-1", "training", "of\nfixed", "cost")
    fixed = next((standing.seconds.mean for standing in told if standing.name == FIXED), None)
    for standing in told:
        table.add_row(
            standing.name,
            str(standing.seeds),
            _spread(standing.top1, 100, "%"),
            _spread(standing.seconds, 1, "s"),
            f"{standing.seconds.mean / fixed:.0%}" if fixed else "-",
            f"{standing.cost:.2f}",
        )
    for leg in failed:
        table.add_row(leg, "-", "failed", "-", "-", "-")
    return table


def _spread(spread: Spread, factor: float, unit: str) -> str:
    deviation = f" ± {factor * spread.deviation:.2f}" if spread.deviation is not None else ""
    return f"{factor * spread.mean:.2f}{deviation} {unit}"


def _times_table(times: list[TimeTo], names: list[str]) -> Table:
    table = _table("time to\ntop-1", *names, "progressive\nof fixed")
    for time in times:
        ours, theirs = time.seconds.get(PROGRESSIVE), time.seconds.get(FIXED)
        share = f"{ours / theirs:.0%}" if ours is not None and theirs is not None else "-"
        cells = ("-" if (value := time.seconds[name]) is None else f"{value:,.1f} s" for name in names)
        table.add_row(f"{time.top1:.0%}", *cells, share)
    return table


def _jumps_table(jumps: list[Jump]) -> Table:
    table = _table("epoch", "px", "norm", "before", "after", "an epoch\nlater")
    for jump in jumps:
        cells = (f"{top1:.2%}" if top1 is not None else "-" for top1 in (jump.before, jump.after, jump.epoch_later))
        table.add_row(str(jump.epoch), f"{jump.resolution_before} -> {jump.resolution_after}", jump.norm, *cells)
    return table

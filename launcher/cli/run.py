"""`resolute run` and `resolute resume`: train, show how it goes, and say where everything lies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from launcher.attempts import refuse_in_vain
from launcher.cli.batch_size import settle
from launcher.cli.console import as_typed, say
from launcher.cli.display import RunDisplay, show_summary
from launcher.cli.errors import STOPPED
from launcher.cli.plan import JobArgument, OverridesArgument, show_plan
from launcher.cli.queue import RunRootOption
from launcher.cli.submit import resubmit
from launcher.config import JobConfig
from launcher.durable import write_atomically
from launcher.event_log import LoggedEvent, read_events
from launcher.events import EpochTrained, Event, Progress, RunFailed, RunStopped
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.report import summarise
from launcher.slurm.meeting import drivers_meeting
from launcher.slurm.submissions import NoSuchRunError, SubmittedRun, find_runs, read_submissions
from launcher.slurm.time_left import Measured, job_ends_at, may_not_fit

if TYPE_CHECKING:  # Heavy, so imported inside the commands.
    from launcher.coordinator import Done, Stop
    from launcher.run_directory import RunDirectory
    from launcher.run_setup import RunSetup


class Mode(str, Enum):
    SINGLE = "single"
    RAY = "ray"


WorkersOption = Annotated[int | None, typer.Option(min=1, help="Number of workers; the job's when absent.")]
ModeOption = Annotated[
    Mode | None,
    typer.Option(help="single: one process. ray: one worker per GPU, or CPU workers, on this machine."),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-changes", help="Resume although the job or its plan has changed since.")
]
TryAgainOption = Annotated[
    bool, typer.Option("--try-again", help="Start although the last attempts in a row have saved nothing new.")
]


def run(
    job: JobArgument,
    overrides: OverridesArgument = None,
    mode: ModeOption = None,
    workers: WorkersOption = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="The run's directory; an existing run is resumed. runs/NAME-TIME when absent."),
    ] = None,
    accept_changes: AcceptOption = False,
    try_again: TryAgainOption = False,
) -> None:
    """Carry out a job: train through its phases, checkpoint at each boundary, evaluate.

    Ctrl-C or SIGTERM stops it within seconds, with a checkpoint; resume with `resolute resume RUN_DIR`.

    Examples:

      resolute run jobs/demo.yaml --mode ray --workers 2

      resolute run my-job.yaml data.train=train.beton data.val=val.beton --run-dir runs/first
    """
    config = load_job(job, [*(overrides or ()), *flags(mode, workers)])
    root = run_dir or Path("runs") / f"{config.name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    carry_out(config, source=job, root=root.absolute(), accept_changes=accept_changes, try_again=try_again)


def resume(
    run_dir: Annotated[
        Path,
        typer.Argument(metavar="RUN_DIR", help="The directory of a run; of a submitted one also its name or job id."),
    ],
    overrides: OverridesArgument = None,
    mode: ModeOption = None,
    workers: WorkersOption = None,
    accept_changes: AcceptOption = False,
    try_again: TryAgainOption = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, though Slurm carried the run out.")] = False,
    run_root: RunRootOption = Path("runs"),
) -> None:
    """Go on with a run from its newest valid checkpoint; one that was submitted to Slurm is submitted again.

    Examples:

      resolute resume runs/demo-20260314-092653

      resolute resume 4711
    """
    submitted = [] if here else _submitted(run_dir, run_root)
    if submitted:
        resubmit(
            submitted,
            [*(overrides or ()), *flags(mode, workers)],
            workers=workers,
            mode=mode.value if mode else None,
            accept_changes=accept_changes,
        )
        return
    from launcher.run_directory import RunDirectoryError

    paths = RunPaths(run_dir.absolute())
    if not paths.job.is_file():
        raise RunDirectoryError(f"{run_dir} is no run directory ({paths.job.name} is missing); see `ls runs`")
    config = load_job(str(paths.job), [*(overrides or ()), *flags(mode, workers)])
    carry_out(config, source=str(paths.job), root=paths.root, accept_changes=accept_changes, try_again=try_again)


def flags(mode: Mode | None, workers: int | None) -> list[str]:
    """As overrides of the job."""
    flags = [f"run.mode={mode.value}"] if mode else []
    return flags + ([f"run.workers={workers}"] if workers else [])


def _submitted(run_dir: Path, run_root: Path) -> list[SubmittedRun]:
    """The runs that Slurm was given and that answer to that directory, name or job id; none if it is another run's."""
    if RunPaths(run_dir).job.is_file():
        run = read_submissions(run_dir.absolute())
        return [run] if run else []
    try:
        return find_runs(str(run_dir), run_root=run_root)
    except NoSuchRunError:
        if run_dir.is_dir():
            return []
        raise


def carry_out(
    config: JobConfig, *, source: str, root: Path, accept_changes: bool = False, try_again: bool = False
) -> None:
    """Run a job in the directory `root`, or go on with it there. Raises typer.Exit if it was stopped before its end."""
    from launcher.run_directory import open_run_directory
    from launcher.run_setup import check_job, prepare_run

    console = Console()
    config = settle(config, source=source, paths=RunPaths(root), console=console)
    job, plan, data = check_job(config, source=source)
    executor = _executor(job)
    with open_run_directory(root, tell=lambda line: say(console, line)) as directory:
        setup = prepare_run(
            job, plan, data, paths=directory.paths, accept_changes=accept_changes, claim=directory.claim
        )
        if setup.start == setup.plan.end and directory.paths.model.is_file():
            say(console, f"{_relative(root)} is finished already.")
            stopped = False
        else:
            earlier = read_events(directory.paths.events)
            summarise(earlier)  # What no run has written is refused now, not after hours of training.
            if not try_again:
                refuse_in_vain(earlier, setup.plan, setup.start, job.run)
            show_plan(setup.plan, title=job.name, console=console)
            say(console, f"run directory {_relative(root)}")
            stopped = _execute(setup, executor, directory, earlier, console)
        summary = summarise(read_events(directory.paths.events))
        write_atomically(directory.paths.summary, json.dumps(summary.to_json(), indent=1) + "\n")
        show_summary(summary, root=_relative(root), paths=directory.paths, console=console)
    if stopped:
        say(console, f"go on with: resolute resume {as_typed(root)}")
        raise typer.Exit(STOPPED)


def _execute(
    setup: RunSetup, executor: Executor, directory: RunDirectory, earlier: Sequence[LoggedEvent], console: Console
) -> bool:
    """Train, logging and showing what happens; whether it was stopped before the plan's end."""
    from launcher.coordinator import Stop
    from launcher.run_setup import attempt_started

    with RunDisplay(setup.plan, console) as display:

        def on_event(event: Event) -> None:
            if not isinstance(event, Progress):
                directory.events.append(event.to_json())
            display.show(event)
            if isinstance(event, EpochTrained) and Position(event.epoch + 1) in setup.plan.phase_boundaries():
                warn_of_time(Position(event.epoch + 1), Measured(event.epoch, event.seconds))

        def warn_of_time(start: Position, measured: Measured) -> None:
            ends_at = job_ends_at()
            told = may_not_fit(setup.plan, start, measured, left_s=ends_at - time.time()) if ends_at else None
            if told is not None:
                on_event(told)
                say(console, str(told))

        on_event(attempt_started(setup))
        trained = [event for event in earlier if event["event"] == "epoch_trained"]
        if trained:
            warn_of_time(setup.start, Measured(trained[-1]["epoch"], trained[-1]["seconds"]))
        try:
            outcome = executor(setup, on_event)
        except BaseException as error:
            on_event(RunFailed(error=f"{type(error).__name__}: {error}"))
            raise
        if isinstance(outcome, Stop):
            at = outcome.position
            on_event(RunStopped(reason=outcome.reason, epoch=at.epoch, samples_done=at.samples_done))
        return isinstance(outcome, Stop)


def _relative(path: Path) -> Path:
    """As a user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


Executor = Callable[["RunSetup", Callable[[Event], None]], "Stop | Done"]


def _executor(job: JobConfig) -> Executor:
    if job.run.mode == "ray" and (folder := drivers_meeting()):
        from launcher.slurm.across_nodes import run_across_nodes

        return partial(run_across_nodes, folder=folder)
    if job.run.mode == "ray":
        from launcher.executors.local_ray import run_local_ray

        return run_local_ray
    from launcher.executors.single import run_single

    return run_single

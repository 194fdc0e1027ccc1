"""`resolute status`, `logs` and `cancel`: runs that were submitted to Slurm, by directory, name or job id."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.cli.console import as_typed, say, show_table
from launcher.cli.plan import Format
from launcher.slurm import commands, records
from launcher.slurm.commands import SlurmError
from launcher.slurm.records import SlurmPaths
from launcher.slurm.standing import Standing, standing
from launcher.slurm.submissions import SubmittedRun, find_runs

_FOLLOW_POLL_S = 0.5

TargetArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's directory, its job's name, or the Slurm job's id.")
]
RunRootOption = Annotated[Path, typer.Option(help="Where runs are looked for by name or id.")]


def status(
    target: TargetArgument,
    run_root: RunRootOption = Path("runs"),
    output: Annotated[Format, typer.Option("--format", help="Lines to read, or JSON.")] = Format.TABLE,
) -> None:
    """Say how a submitted run stands: waiting, running, or how it ended, and what it has saved.

    Examples:

      resolute status runs/demo-20260314-092653

      resolute status 4711 --format json
    """
    runs = find_runs(target, run_root=run_root)
    standings, trouble = _standings(runs)
    if output is Format.JSON:
        typer.echo(json.dumps([_plain(run, stands) for run, stands in zip(runs, standings, strict=True)], indent=1))
        return
    console = Console()
    show_table(console, _table(runs, standings))
    if trouble:
        say(console, trouble)
    for run, stands in zip(runs, standings, strict=True):
        if stands.resumable:
            say(console, f"go on with: resolute resume {as_typed(run.root)}")


def logs(
    target: TargetArgument,
    run_root: RunRootOption = Path("runs"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print what a submitted run has said, over all its attempts.

    Example:

      resolute logs -f demo
    """
    run = _only(find_runs(target, run_root=run_root), target)
    with contextlib.suppress(KeyboardInterrupt):
        shown = _print_from(run, 0)
        while follow and not _is_over(run):
            time.sleep(_FOLLOW_POLL_S)
            shown = _print_from(run, shown)
        _print_from(run, shown)
    if not SlurmPaths(run.root).log.is_file():
        _explain_silence(run)


def cancel(target: TargetArgument, run_root: RunRootOption = Path("runs")) -> None:
    """Have Slurm end a run's jobs, after a checkpoint; it is not queued again. `resolute resume` goes on with it.

    Example:

      resolute cancel runs/demo-20260314-092653
    """
    runs = find_runs(target, run_root=run_root)
    entries, trouble = commands.queue_entries([job_id for run in runs for job_id in run.job_ids])
    if trouble:
        raise SlurmError(trouble)
    live = [entry.job_id for entry in entries.values() if entry.is_live]
    if not live:
        raise SlurmError(f"{target}: none of its jobs is in Slurm's queue; see `resolute status {target}`")
    # Those that wait for another first: they would start when it ends.
    accepted, words = commands.cancel(sorted(live, reverse=True))
    if not accepted:
        raise SlurmError(f"scancel refused: {words}")
    say(Console(), f"cancelled Slurm job {', '.join(live)}")


def _standings(runs: list[SubmittedRun]) -> tuple[list[Standing], str | None]:
    """Of each run's job that is live, or else of its last one; and why Slurm could not be asked."""
    entries, trouble = commands.queue_entries([job_id for run in runs for job_id in run.job_ids])
    found = []
    for run in runs:
        live = [job_id for job_id in run.job_ids if job_id in entries and entries[job_id].is_live]
        job_id = (live or run.job_ids[-1:])[0]
        lines = records.read(SlurmPaths(run.root).attempts)
        found.append(standing(job_id, entries.get(job_id), lines, checkpoint=records.newest_checkpoint(run.root)))
    return found, trouble


def _table(runs: list[SubmittedRun], standings: list[Standing]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("job", "state", "restarts", "saved up to"):
        table.add_column(heading, no_wrap=True)
    for heading in ("", "run"):
        table.add_column(heading, overflow="fold")
    for run, stands in zip(runs, standings, strict=True):
        saved = stands.checkpoint or "-"
        table.add_row(
            stands.job_id, stands.state, str(stands.restarts), saved, stands.explanation, str(as_typed(run.root))
        )
    return table


def _plain(run: SubmittedRun, stands: Standing) -> dict[str, Any]:
    return {"run": str(run.root), "name": run.name, **asdict(stands)}


def _only(runs: list[SubmittedRun], target: str) -> SubmittedRun:
    if len(runs) > 1:
        listed = "\n  ".join(str(as_typed(run.root)) for run in runs)
        raise SlurmError(f"{target} is several runs; name one of\n  {listed}")
    return runs[0]


def _print_from(run: SubmittedRun, offset: int) -> int:
    """Print the log from a byte on; where it ends now."""
    path = SlurmPaths(run.root).log
    if not path.is_file():
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()
    return offset + len(content)


def _is_over(run: SubmittedRun) -> bool:
    """Whether its last job has left Slurm's hands."""
    (stands,), trouble = _standings([run])
    return trouble is not None or not stands.is_live


def _explain_silence(run: SubmittedRun) -> None:
    (stands,), trouble = _standings([run])
    print(f"nothing yet: Slurm job {stands.job_id} is {stands.state}, {trouble or stands.explanation}", file=sys.stderr)
    for printed in sorted(SlurmPaths(run.root).folder.glob(f"{stands.job_id}_*_log.out")):
        sys.stderr.write(printed.read_text(errors="replace"))

"""`resolute status`, `logs` and `cancel`: runs that were submitted to Slurm, by directory, name or job id."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
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
from launcher.slurm.conduct import Ending
from launcher.slurm.records import SlurmPaths
from launcher.slurm.standing import QueueEntry, Standing, is_final, last_ending, standing
from launcher.slurm.submissions import SubmittedRun, find_runs, is_sweep

_FOLLOW_POLL_S = 0.5
_ASK_SLURM_EVERY_S = 15.0
"""While a log is followed: many users do so, and one controller answers them all."""

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
    standings = _standings(runs)
    if output is Format.JSON:
        typer.echo(json.dumps([_plain(run, stands) for run, stands in zip(runs, standings, strict=True)], indent=1))
        return
    console = Console()
    show_table(console, _table(runs, standings))
    if standings[0].trouble:
        say(console, standings[0].trouble)
    for run, stands in zip(runs, standings, strict=True):
        if stands.resumable:
            how = "resolute resume" if run.submitted_with else "sbatch [OPTIONS] slurm/resolute.sbatch"
            say(console, f"go on with: {how} {as_typed(run.root)}")


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
        for _ in _until_over(run) if follow else ():
            shown = _print_from(run, shown)
        _print_from(run, shown)
    if not SlurmPaths(run.root).log.is_file() or _last_ending(run) is None:
        _explain_silence(run)


def cancel(target: TargetArgument, run_root: RunRootOption = Path("runs")) -> None:
    """Have Slurm end a run's jobs, after a checkpoint; it is not queued again. `resolute resume` goes on with it.

    Example:

      resolute cancel runs/demo-20260314-092653
    """
    runs = find_runs(target, run_root=run_root)
    if not is_sweep(runs) and (len(runs) > 1 or runs[0].root.parent == Path(target).absolute()):
        raise SlurmError(f"{target} is neither a run nor a sweep; name one of\n  {_listed(runs)}")
    entries, trouble = commands.queue_entries([job_id for run in runs for job_id in run.job_ids])
    if trouble:
        raise SlurmError(f"nothing was cancelled: {trouble}; try again")
    live = [entry.job_id for entry in entries.values() if entry.is_live]
    if not live:
        raise SlurmError(f"{target}: none of its jobs is in Slurm's queue; see `resolute status {shlex.quote(target)}`")
    # Those that wait for another first: they would start when it ends.
    accepted, words = commands.cancel(sorted(live, reverse=True))
    if not accepted:
        raise SlurmError(f"scancel refused: {words}")
    say(Console(), f"cancelled Slurm job {', '.join(live)}")


def _standings(runs: list[SubmittedRun]) -> list[Standing]:
    entries, trouble = commands.queue_entries([job_id for run in runs for job_id in run.job_ids])
    return [_standing(run, entries, trouble) for run in runs]


def _standing(run: SubmittedRun, entries: dict[str, QueueEntry], trouble: str | None) -> Standing:
    """Of its job that is live, or else of its last one; if Slurm cannot be asked, of the one that began last."""
    lines = records.read(SlurmPaths(run.root).attempts)
    live = [job_id for job_id in run.job_ids if job_id in entries and entries[job_id].is_live]
    begun = [stay.job_id] if trouble and (stay := records.holder(lines)) else []
    job_id = (live or begun or run.job_ids[-1:])[0]
    checkpoint = records.newest_checkpoint(run.root)
    return standing(job_id, entries.get(job_id), lines, checkpoint=checkpoint, trouble=trouble)


def _table(runs: list[SubmittedRun], standings: list[Standing]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("job", "state", "restarts", "saved up to"):
        table.add_column(heading, no_wrap=True)
    for heading in ("", "run"):
        table.add_column(heading, overflow="fold")
    for run, stands in zip(runs, standings, strict=True):
        saved = stands.checkpoint or "-"
        table.add_row(stands.job_id, stands.state, str(stands.restarts), saved, stands.explanation, as_typed(run.root))
    return table


def _plain(run: SubmittedRun, stands: Standing) -> dict[str, Any]:
    return {"run": str(run.root), "name": run.name, **asdict(stands)}


def _only(runs: list[SubmittedRun], target: str) -> SubmittedRun:
    if len(runs) > 1:
        raise SlurmError(f"{target} is several runs; name one of\n  {_listed(runs)}")
    return runs[0]


def _listed(runs: list[SubmittedRun]) -> str:
    return "\n  ".join(as_typed(run.root) for run in runs)


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


def _until_over(run: SubmittedRun) -> Iterator[None]:
    """Go on, twice a second, until the run's last job is over: by its agent's last word, or by Slurm's."""
    ask_at, told = time.monotonic(), False
    while not is_final(_last_ending(run)):
        if time.monotonic() >= ask_at:
            stands = _standings([run])[0]
            if stands.is_live is False:
                return
            if stands.trouble and not told:
                print(f"resolute: {stands.trouble}; the log is followed all the same", file=sys.stderr)
                told = True
            ask_at = time.monotonic() + _ASK_SLURM_EVERY_S
        yield
        time.sleep(_FOLLOW_POLL_S)


def _last_ending(run: SubmittedRun) -> Ending | None:
    """Of the last job's last agent; None while it has not ended, or if it ended without a word."""
    return last_ending(records.read(SlurmPaths(run.root).attempts), run.job_ids[-1])


def _explain_silence(run: SubmittedRun) -> None:
    """Say on stderr why there is no log, or none of a last job that is over, with what was printed before it began."""
    (stands,) = _standings([run])
    if not SlurmPaths(run.root).log.is_file():
        said = f"{stands.explanation}; {stands.trouble}" if stands.trouble else stands.explanation
        print(f"nothing yet: Slurm job {stands.job_id} is {stands.state}, {said}", file=sys.stderr)
    elif stands.is_live is False:
        print(f"resolute: Slurm job {stands.job_id} is {stands.state}, {stands.explanation}", file=sys.stderr)
    else:
        return
    for printed in _printed(run, stands.job_id):
        sys.stderr.write(printed.read_text(errors="replace"))


def _printed(run: SubmittedRun, job_id: str) -> list[Path]:
    """What Slurm's own part of a job has printed: in the run's directory, or beside the runs of a sweep."""
    folders = (SlurmPaths(run.root).folder, SlurmPaths(run.root.parent).folder)
    return [path for folder in folders for path in sorted(folder.glob(f"{job_id}_*_log.out"))]

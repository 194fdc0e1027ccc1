"""`resolute batch-size`: how many samples a worker takes at once, found by real training steps on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.batch_search import Finding, find_batches
from launcher.batch_size import open_phases, with_batches
from launcher.cli.console import say, show_table
from launcher.cli.plan import JobArgument, OverridesArgument
from launcher.config import JobConfig
from launcher.data_facts import count_samples, known_num_classes
from launcher.job_file import load_job
from launcher.paths import RunPaths


def batch_size(
    job: JobArgument,
    overrides: OverridesArgument = None,
    again: Annotated[bool, typer.Option("--again", help="Search even if it was done here before.")] = False,
) -> None:
    """Find the largest batch that each phase of a job trains with, as `batch_per_worker: auto` does.

    By forward, backward and update at the phase's size, in the job's precision, up to a real lack of memory; the least
    over the kinds of GPUs that are here. On a CPU by the area rule, from what the largest size takes.

    Examples:

      resolute batch-size my-job.yaml data.num_samples=1281167

      resolute batch-size imagenet-rn50-classic --again
    """
    config = load_job(job, overrides or ())
    every = tuple(phase.model_copy(update={"batch_per_worker": "auto"}) for phase in config.phases)
    config = config.model_copy(update={"phases": every})
    found = _find(config, source=job, again=again)
    show_table(Console(), findings_table(found))


def settle(config: JobConfig, *, source: str, paths: RunPaths, console: Console) -> JobConfig:
    """The job with a number for each `batch_per_worker: auto`: that of the run that is there, or what is found here.

    Raises BatchSizeError.
    """
    config = with_earlier_batches(config, paths)
    if not open_phases(config):
        return config
    say(console, "looking for the batches that train at each size ...")
    found = _find(config, source=source, again=False)
    show_table(console, findings_table(found))
    return with_batches(config, {finding.phase: finding.batch for finding in found})


def with_earlier_batches(config: JobConfig, paths: RunPaths) -> JobConfig:
    """The job with the batches of the run that is there, if it has one for every phase that leaves its own open."""
    earlier = load_job(str(paths.job)).phases if open_phases(config) and paths.job.is_file() else ()
    known = {
        phase: batch
        for phase in open_phases(config)
        if phase < len(earlier) and isinstance(batch := earlier[phase].batch_per_worker, int)
    }
    return with_batches(config, known) if known.keys() == open_phases(config).keys() else config


def _find(config: JobConfig, *, source: str, again: bool) -> list[Finding]:
    num_samples = count_samples(config, source=source)
    return find_batches(config, num_classes=known_num_classes(config), num_samples=num_samples, again=again)


def findings_table(found: list[Finding]) -> Table:
    """A row per phase."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("phase", "px", "batch/worker", "memory", "on", "known"):
        table.add_column(heading, justify="right", no_wrap=True)
    for finding in found:
        table.add_row(
            str(finding.phase),
            str(finding.resolution),
            str(finding.batch),
            f"{finding.memory_bytes / 1e9:,.2f} GB",
            finding.device,
            "from before" if finding.earlier else "now",
        )
    return table

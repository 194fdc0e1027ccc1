"""`resolute submit`: check a job here, and have Slurm run it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from launcher.cli.console import as_typed, say
from launcher.cli.plan import JobArgument, OverridesArgument
from launcher.config import JobConfig
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.slurm.allocation import allocate, fit, sbatch_options
from launcher.slurm.commands import SlurmError, queue_entries
from launcher.slurm.profile import Profile, load_profile
from launcher.slurm.records import SlurmPaths
from launcher.slurm.submissions import find_runs, note_submission, read_submissions
from launcher.slurm.sweep import SweepError, SweepRun, sweep_runs

if TYPE_CHECKING:  # Heavy, so imported inside the command.
    from launcher.data_facts import DataFacts
    from launcher.plan import Plan
    from launcher.slurm.sbatch import Batch


@dataclass(frozen=True)
class CheckedRun:
    """A run that may be submitted."""

    root: Path
    job: JobConfig
    plan: Plan
    data: DataFacts


def submit(
    job: JobArgument,
    profile: Annotated[str, typer.Option(help="A site profile: a file, or a name in slurm/profiles/.")],
    overrides: OverridesArgument = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the profile.")
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="The run's directory; an existing run goes on. NAME-TIME in the profile's run_root if absent."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE,...", help="An array of runs, one for each value or combination."),
    ] = None,
    chain: Annotated[
        int,
        typer.Option(min=1, help="Jobs that follow one another, where time limits are hard and requeues forbidden."),
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch script, and do nothing.")] = False,
    test_only: Annotated[
        bool, typer.Option("--test-only", help="Ask Slurm when and where the job would run, and do nothing.")
    ] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on although the job or its plan has changed since.")
    ] = False,
) -> None:
    """Have Slurm carry out a job: preempted, out of time or off a lost node, it saves, is queued again and goes on.

    Examples:

      resolute submit imagenet-rn50-16 --profile my-site.yaml data.train=train.beton data.val=val.beton

      resolute submit demo --profile cpu --set nodes=2 --dry-run

      resolute submit my-job.yaml --profile my-site.yaml --sweep seed=1,2,3
    """
    site = load_profile(profile, settings or ())
    name, runs = _check_all(job, overrides or [], site, run_dir=run_dir, sweep=sweep or [], accept=accept_changes)
    root = runs[0].root.parent if sweep else runs[0].root
    batch = _batch(name, site, runs, root)
    _warn(runs[0])
    if dry_run or test_only:
        _show(batch, test_only=test_only)
        return
    console = Console()
    for run in runs:
        _prepare(run, accept_changes=accept_changes)
    job_ids = _submit_chain(batch, site, runs, name=name, chain=chain)
    _tell(console, job_ids, root, site)


def resubmit(target: str, overrides: list[str], *, accept_changes: bool) -> None:
    """Have Slurm go on with a run that was submitted before, in the same way. Raises SlurmError, JobError."""
    earlier = find_runs(target, run_root=Path("runs"))
    if len(earlier) > 1:
        listed = "\n  ".join(str(as_typed(run.root)) for run in earlier)
        raise SlurmError(f"{target} is several runs; name one of\n  {listed}")
    root, site = earlier[0].root, Profile.model_validate(earlier[0].profile)
    source = str(RunPaths(root).job)
    run = _check(load_job(source, overrides), site, source=source, root=root)
    batch = _batch(run.job.name, site, [run], root)
    _warn(run)
    _prepare(run, accept_changes=accept_changes)
    _tell(Console(), _submit_chain(batch, site, [run], name=run.job.name, chain=1), root, site)


def _check_all(
    source: str, overrides: list[str], site: Profile, *, run_dir: Path | None, sweep: list[str], accept: bool
) -> tuple[str, list[CheckedRun]]:
    """Check every run of the submission; the first one's name, and where each will lie. Nothing is written."""
    variants = sweep_runs(sweep) if sweep else [SweepRun("", ())]
    jobs = [load_job(source, [*overrides, *variant.overrides]) for variant in variants]
    name = jobs[0].name
    root = (run_dir or Path(site.run_root) / f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}").absolute()
    return name, [
        _check(job, site, source=source, root=root / variant.name) for job, variant in zip(jobs, variants, strict=True)
    ]


def _check(job: JobConfig, site: Profile, *, source: str, root: Path) -> CheckedRun:
    from launcher.run_setup import check_job

    _refuse_queued(root)
    checked, plan, data = check_job(fit(job, site), source=source)
    return CheckedRun(root, checked, plan, data)


def _warn(run: CheckedRun) -> None:
    """Of a grace that a stop does not fit into; on stderr, as stdout is the script's in a dry run."""
    if run.job.run.grace_s is None:
        return
    from launcher.coordinator import Cadence
    from launcher.slurm.grace import warn_of_grace

    cadence = Cadence(lease_s=run.job.run.lease_s, grace_s=run.job.run.grace_s)
    words = warn_of_grace(cadence, checkpoint_bytes=_checkpoint_bytes(run))
    if words is not None:
        say(Console(stderr=True), f"resolute: {words}")


def _checkpoint_bytes(run: CheckedRun) -> int:
    from launcher.disk_budget import disk_budget
    from launcher.models.build import on_meta

    model = on_meta(run.job.model, num_classes=run.data.num_classes)
    return disk_budget(
        run.job.optimizer,
        run.job.checkpoint,
        state_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
        parameter_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        num_boundaries=len(run.plan.phase_boundaries()),
        has_average=run.job.ema is not None,
    ).checkpoint_bytes


def _refuse_queued(root: Path) -> None:
    """Raises SlurmError if a job for this directory waits or runs already."""
    earlier = read_submissions(root)
    entries, _ = queue_entries(earlier.job_ids) if earlier else ({}, None)
    for entry in entries.values():
        if entry.is_live:
            raise SlurmError(
                f"{root} belongs to Slurm job {entry.job_id} ({entry.state}): wait for it, or "
                f"`resolute cancel {entry.job_id}`, or take another --run-dir"
            )


def _batch(name: str, site: Profile, runs: list[CheckedRun], root: Path) -> Batch:
    from launcher.slurm.sbatch import Batch

    asked = allocate(runs[0].job, site)
    if any(allocate(run.job, site) != asked for run in runs):
        raise SweepError("the runs of a sweep share one shape of allocation: sweep over something else than workers")
    python = shlex.quote(site.python or sys.executable)
    agent = (
        f"{python} -m launcher.slurm.agent --lead-s {site.signal_lead_s} --workers-per-node {asked.workers_per_node}"
    )
    agent += f" --join-timeout-s {site.join_timeout_s:g}"
    if site.network_interface:
        agent += f" --interface {shlex.quote(site.network_interface)}"
    return Batch(
        folder=SlurmPaths(root).folder,
        options=sbatch_options(site, asked, name=name, run_directory=str(root)),
        agent=f"{site.container} {agent}" if site.container else agent,
        run_directories=[run.root for run in runs],
    )


def _show(batch: Batch, *, test_only: bool) -> None:
    from launcher.slurm import sbatch

    typer.echo(sbatch.test_only(batch) if test_only else sbatch.script(batch))


def _prepare(run: CheckedRun, *, accept_changes: bool) -> None:
    """Make the run's directory, with job and plan in it, or see that the run in it is the same."""
    from launcher.run_directory import open_run_directory
    from launcher.run_setup import prepare_run

    with open_run_directory(run.root) as directory:
        prepare_run(
            run.job, run.plan, run.data, paths=directory.paths, accept_changes=accept_changes, claim=directory.claim
        )


def _submit_chain(batch: Batch, site: Profile, runs: list[CheckedRun], *, name: str, chain: int) -> list[str]:
    """Submit the job, and those that follow it; each is noted as soon as Slurm has it."""
    from launcher.slurm import sbatch

    job_ids: list[str] = []
    for _ in range(chain):
        job_ids.append(sbatch.submit(batch.following(job_ids[-1]) if job_ids else batch))
        for number, run in enumerate(runs):
            job_id = f"{job_ids[-1]}_{number}" if len(runs) > 1 else job_ids[-1]
            note_submission(run.root, job_id=job_id, name=name, profile=site)
    return job_ids


def _tell(console: Console, job_ids: list[str], root: Path, site: Profile) -> None:
    shown = as_typed(root)
    say(console, f"submitted as Slurm job {', then '.join(job_ids)}; run directory {shown}")
    if not site.requeue:
        say(console, f"it may not be queued again by itself; after a preemption: resolute resume {shown}")
    for verb in ("status", "logs -f", "cancel"):
        say(console, f"  resolute {verb} {shown}")

"""`resolute submit`: check a job here, and have Slurm run it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from launcher.batch_size import open_phases, with_batches
from launcher.cli.batch_size import with_earlier_batches
from launcher.cli.console import as_typed, say
from launcher.cli.hand_over import CheckedRun, hand_over
from launcher.cli.plan import JobArgument, OverridesArgument
from launcher.config import JobConfig
from launcher.job_file import load_job
from launcher.paths import RunPaths
from launcher.slurm.allocation import allocate, fit, sbatch_options
from launcher.slurm.commands import SlurmError
from launcher.slurm.profile import Profile, load_profile
from launcher.slurm.records import SlurmPaths
from launcher.slurm.submissions import SubmittedRun
from launcher.slurm.sweep import SweepError, SweepRun, sweep_runs

if TYPE_CHECKING:  # Heavy, so imported inside the command.
    from launcher.slurm.sbatch import Batch


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
    name, runs = _check_all(job, overrides or [], site, run_dir=run_dir, sweep=sweep or [])
    root = runs[0].root.parent if sweep else runs[0].root
    batch = _batch(name, site, runs, root)
    _warn(runs[0])
    if dry_run or test_only:
        _show(batch, test_only=test_only, chain=chain)
        return
    job_ids = hand_over(batch, site, runs, chain=chain, accept_changes=accept_changes)
    _tell(Console(), job_ids, root, site)


def resubmit(
    earlier: Sequence[SubmittedRun],
    overrides: list[str],
    *,
    workers: int | None,
    mode: str | None,
    accept_changes: bool,
) -> None:
    """Have Slurm go on with a run that was submitted before, in the same way; started it is in any case, however many
    attempts have saved nothing new. `workers` and `mode` stand among the overrides, too. Raises SlurmError, JobError.
    """
    if len(earlier) > 1:
        listed = "\n  ".join(str(as_typed(run.root)) for run in earlier)
        raise SlurmError(f"these are several runs; name one of\n  {listed}")
    root, site = earlier[0].root, Profile.model_validate(earlier[0].profile)
    source = str(RunPaths(root).job)
    run = _check(load_job(source, overrides), site, source=source, root=root)
    _refuse_unheeded(run, workers=workers, mode=mode)
    batch = _batch(run.job.name, site, [run], root)
    _warn(run)
    _tell(Console(), hand_over(batch, site, [run], chain=1, accept_changes=accept_changes), root, site)


def _check_all(
    source: str, overrides: list[str], site: Profile, *, run_dir: Path | None, sweep: list[str]
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
    """Batches that are found when the job starts count as the least there are until then."""
    from launcher.run_setup import check_job

    _refuse_pattern(root)
    job = with_earlier_batches(fit(job, site), RunPaths(root))
    checked, plan, data = check_job(with_batches(job, dict.fromkeys(open_phases(job), 1)), source=source)
    return CheckedRun(root, checked.model_copy(update={"phases": job.phases}), plan, data)


def _refuse_pattern(root: Path) -> None:
    """Raises SlurmError for a directory whose path Slurm would not take as it stands for that of a job's output."""
    if any(sign in str(root) for sign in "%\\\n"):
        raise SlurmError(
            f"{root}: Slurm reads % and \\ in paths as patterns; take a --run-dir or run_root without them"
        )


def _refuse_unheeded(run: CheckedRun, *, workers: int | None, mode: str | None) -> None:
    """Raises SlurmError if the profile leaves these no choice."""
    granted = run.job.run
    if workers not in (None, granted.workers) or mode not in (None, granted.mode):
        least, most = granted.least_workers, granted.most_workers
        job, root = as_typed(RunPaths(run.root).job), as_typed(run.root)
        raise SlurmError(
            f"by the profile it was submitted with the run has {most if least == most else f'{least} to {most}'} "
            f"workers in mode {granted.mode}, whatever --workers and --mode say; submit it with another one: "
            f"resolute submit {job} --profile SITE --set nodes=N --run-dir {root}"
        )


def _warn(run: CheckedRun) -> None:
    """Of what the job will settle for itself or may not bear; on stderr, as stdout is the script's in a dry run."""
    console = Console(stderr=True)
    if phases := ", ".join(map(str, open_phases(run.job))):
        say(
            console,
            f"resolute: batch_per_worker: auto is found at the job's start, on its own machines (phases {phases}); the "
            "plan follows from that",
        )
    if (words := _grace_warning(run)) is not None:
        say(console, f"resolute: {words}")


def _grace_warning(run: CheckedRun) -> str | None:
    """Of a grace that a stop does not fit into."""
    if run.job.run.grace_s is None:
        return None
    from launcher.coordinator import Cadence
    from launcher.slurm.grace import warn_of_grace

    cadence = Cadence(lease_s=run.job.run.lease_s, grace_s=run.job.run.grace_s)
    return warn_of_grace(cadence, checkpoint_bytes=_checkpoint_bytes(run))


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


def _batch(name: str, site: Profile, runs: list[CheckedRun], root: Path) -> Batch:
    from launcher.slurm.sbatch import Batch

    asked = allocate(runs[0].job, site)
    if any(allocate(run.job, site) != asked for run in runs):
        raise SweepError("the runs of a sweep share one shape of allocation: sweep over something else than workers")
    python = shlex.quote(site.python or ("python" if site.container else sys.executable))
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


def _show(batch: Batch, *, test_only: bool, chain: int) -> None:
    from launcher.slurm import sbatch

    typer.echo(sbatch.test_only(batch) if test_only else sbatch.script(batch))
    if chain > 1:
        added = "`--dependency=afterany:ID` and, for its agents, `--after ID`"
        words = f"resolute: {chain - 1} more like it would follow, each with {added}; ID is the job before it"
        say(Console(stderr=True), words)


def _tell(console: Console, job_ids: list[str], root: Path, site: Profile) -> None:
    shown = as_typed(root)
    say(console, f"submitted as Slurm job {', then '.join(job_ids)}; run directory {shown}")
    if not site.requeue:
        say(console, f"it may not be queued again by itself; after a preemption: resolute resume {shown}")
    for verb in ("status", "logs -f", "cancel"):
        say(console, f"  resolute {verb} {shown}")

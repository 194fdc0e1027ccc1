"""What `resolute submit` does once a job has been checked: run directories, sbatch, and a note of each job."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.batch_size import open_phases
from launcher.cli.console import as_typed
from launcher.config import JobConfig
from launcher.durable import make_directory
from launcher.slurm.commands import SlurmError, queue_entries
from launcher.slurm.profile import Profile
from launcher.slurm.submissions import note_submission, read_submissions

if TYPE_CHECKING:  # Heavy, so imported inside the functions.
    from launcher.data_facts import DataFacts
    from launcher.plan import Plan
    from launcher.slurm.sbatch import Batch


@dataclass(frozen=True)
class CheckedRun:
    """A run that may be submitted."""

    root: Path
    job: JobConfig
    plan: Plan
    """Of the least batches where the job leaves them open."""
    data: DataFacts


def hand_over(batch: Batch, site: Profile, runs: list[CheckedRun], *, chain: int, accept_changes: bool) -> list[str]:
    """Prepare the runs' directories and submit the job, and those that follow it; their ids.

    Raises SlurmError; if Slurm takes no job, nothing that is new is left.
    """
    from launcher.slurm import sbatch

    sbatch.require_slurm()
    for run in runs:
        _refuse_queued(run.root)
    with _unmade_on_failure([batch.folder.parent, *(run.root for run in runs)]):
        for run in runs:
            _prepare(run, accept_changes=accept_changes)
        job_ids = [sbatch.submit(batch)]
    _note(runs, job_ids[0], site)
    while len(job_ids) < chain:
        try:
            job_ids.append(sbatch.submit(batch.following(job_ids[-1])))
        except SlurmError as error:
            raise _broken_chain(job_ids, chain, batch.folder.parent, error) from error
        _note(runs, job_ids[-1], site)
    return job_ids


def _refuse_queued(root: Path) -> None:
    """Raises SlurmError if a job for this directory waits or runs already, or if that cannot be told."""
    earlier = read_submissions(root)
    if earlier is None:
        return
    entries, trouble = queue_entries(earlier.job_ids)
    for entry in entries.values():
        if entry.is_live:
            raise SlurmError(
                f"{root} belongs to Slurm job {entry.job_id} ({entry.state}): wait for it, or "
                f"`resolute cancel {entry.job_id}`, or take another --run-dir"
            )
    if trouble:
        raise SlurmError(
            f"{root} has had Slurm job {earlier.job_ids[-1]}, and a second one would end it if it still waits or runs; "
            f"{trouble}; try again when Slurm answers, or take another --run-dir"
        )


@contextmanager
def _unmade_on_failure(directories: Iterable[Path]) -> Iterator[None]:
    """Make the directories that are not there yet, and remove them again if the context fails."""
    made = [directory for directory in directories if _make(directory)]
    try:
        yield
    except Exception:
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _make(directory: Path) -> bool:
    """Whether the directory is new. Raises DiskFullError."""
    make_directory(directory.parent)
    try:
        directory.mkdir()
    except FileExistsError:
        return False
    return True


def _prepare(run: CheckedRun, *, accept_changes: bool) -> None:
    """Keep the job in the run's directory, and its plan if it has one yet, or see that the run in it is the same."""
    from launcher.run_directory import open_run_directory
    from launcher.run_setup import keep_open_job, prepare_run

    with open_run_directory(run.root) as directory:
        if open_phases(run.job):
            keep_open_job(run.job, run.data, paths=directory.paths, claim=directory.claim)
            return
        prepare_run(
            run.job, run.plan, run.data, paths=directory.paths, accept_changes=accept_changes, claim=directory.claim
        )


def _note(runs: list[CheckedRun], job_id: str, site: Profile) -> None:
    """Keep with each run that Slurm has a job for it."""
    for number, run in enumerate(runs):
        task = f"{job_id}_{number}" if len(runs) > 1 else job_id
        note_submission(run.root, job_id=task, name=runs[0].job.name, profile=site)


def _broken_chain(job_ids: list[str], chain: int, root: Path, error: SlurmError) -> SlurmError:
    listed = ", ".join(job_ids)
    return SlurmError(
        f"Slurm has taken {len(job_ids)} of the {chain} jobs, {listed}, which will run; the next one it refused: "
        f"{error}\nafter them go on with `resolute resume {as_typed(root)}`, or take them back by "
        f"`resolute cancel {as_typed(root)}`"
    )

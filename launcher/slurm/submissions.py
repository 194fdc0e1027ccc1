"""The runs that were submitted: to note one, to find them again by directory, name or job id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.slurm import commands, records
from launcher.slurm.profile import Profile
from launcher.slurm.records import SlurmPaths

_JOB_ID = re.compile(r"[0-9]+(_[0-9]+)?")


class NoSuchRunError(ValueError):
    """Nothing submitted answers to that name."""


@dataclass(frozen=True)
class SubmittedRun:
    """A run directory, and the Slurm jobs that were submitted for it, oldest first."""

    root: Path
    job_ids: tuple[str, ...]
    name: str
    profile: dict[str, Any]
    """Of the last submission, as the profile's file would hold it."""
    submitted_at: str


def note_submission(root: Path, *, job_id: str, name: str, profile: Profile) -> None:
    """Keep in the run directory that a job was submitted for it. Raises DiskFullError."""
    plain = profile.model_dump(mode="json", exclude_defaults=True)
    records.append(SlurmPaths(root).submissions, "submitted", job_id=job_id, name=name, profile=plain)


def read_submissions(root: Path) -> SubmittedRun | None:
    """None if nothing was ever submitted for this directory."""
    lines = records.read(SlurmPaths(root).submissions)
    if not lines:
        return None
    last = lines[-1]
    return SubmittedRun(root, tuple(line["job_id"] for line in lines), last["name"], last["profile"], last["time"])


def find_runs(target: str, *, run_root: Path) -> list[SubmittedRun]:
    """The run of a directory or of a Slurm job's id, or the last one of a name below `run_root`; a sweep's are several.

    Raises NoSuchRunError.
    """
    found = _of_directory(Path(target))
    if not found and _JOB_ID.fullmatch(target):
        found = _of_job(target, run_root)
    if not found:
        found = _of_name(target, run_root)
    if not found:
        raise NoSuchRunError(
            f"{target}: nothing was submitted under this directory, name or job id; name the run's directory, "
            f"or where to look by --run-root (now {run_root})"
        )
    return found


def _of_directory(path: Path) -> list[SubmittedRun]:
    if not path.is_dir():
        return []
    run = read_submissions(path.absolute())
    return [run] if run else list(_children(path.absolute()))


def _of_job(job_id: str, run_root: Path) -> list[SubmittedRun]:
    told = commands.job_comment(job_id)
    runs = [*_of_directory(Path(told))] if told else []
    runs = runs or list(_below(run_root))
    return [run for run in runs if any(known == job_id or known.startswith(f"{job_id}_") for known in run.job_ids)]


def _of_name(name: str, run_root: Path) -> list[SubmittedRun]:
    named = [run for run in _below(run_root) if name in (run.name, run.root.name, run.root.parent.name)]
    newest = max(named, key=lambda run: run.submitted_at, default=None)
    if newest is None or "_" not in newest.job_ids[-1]:
        return [newest] if newest else []
    return [run for run in named if run.root.parent == newest.root.parent]


def _below(run_root: Path) -> Iterator[SubmittedRun]:
    """Runs, and those of sweeps."""
    for folder in sorted(run_root.absolute().iterdir()) if run_root.is_dir() else ():
        if folder.is_dir():
            run = read_submissions(folder)
            yield from [run] if run else _children(folder)


def _children(folder: Path) -> Iterator[SubmittedRun]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and (run := read_submissions(child)):
            yield run

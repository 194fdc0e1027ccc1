"""The runs that were submitted: to note one, to find them again by directory, name or job id."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.event_log import EventLogError
from launcher.slurm import commands, records, run_index
from launcher.slurm.commands import SlurmError
from launcher.slurm.profile import Profile
from launcher.slurm.records import SlurmPaths

_JOB_ID = re.compile(r"[0-9]+(_[0-9]+)?")


class NoSuchRunError(ValueError):
    """Nothing submitted answers to that name."""


@dataclass(frozen=True)
class SubmittedRun:
    """A run directory, and the Slurm jobs that were started for it, oldest first."""

    root: Path
    job_ids: tuple[str, ...]
    name: str
    """The job's; the directory's of a run that was not submitted by `resolute submit`."""
    submitted_at: str
    submitted_with: dict[str, Any] | None
    """The last submission's profile, as its file would hold it; None without `resolute submit`."""

    @property
    def profile(self) -> dict[str, Any]:
        """To submit it in the same way again. Raises SlurmError if there was none."""
        root = shlex.quote(str(self.root))
        if self.submitted_with is None:
            raise SlurmError(
                f"{self.root} was not submitted by `resolute submit`, so there is no profile to submit it by again: "
                f"`sbatch [OPTIONS] slurm/resolute.sbatch {root}`, or `resolute resume {root} --here` in this process"
            )
        return self.submitted_with


def note_submission(root: Path, *, job_id: str, name: str, profile: Profile) -> None:
    """Keep in the run directory, and for this user, that a job was submitted for it. Raises DiskFullError."""
    plain = profile.model_dump(mode="json", exclude_defaults=True)
    log = SlurmPaths(root).submissions
    if not log.exists():
        run_index.remember(root.absolute())
    records.append(log, "submitted", job_id=job_id, name=name, profile=plain)


def read_submissions(root: Path) -> SubmittedRun | None:
    """None if no Slurm job was ever started for this directory, by `resolute submit` or by slurm/resolute.sbatch."""
    submitted = records.read(SlurmPaths(root).submissions)
    started = [line for line in records.read(SlurmPaths(root).attempts) if line["event"] == "agent_started"]
    lines = sorted([*submitted, *started], key=_order)
    if not lines:
        return None
    job_ids = tuple(dict.fromkeys(str(line["job_id"]) for line in lines))
    if not submitted:
        return SubmittedRun(root, job_ids, root.name, lines[0]["time"], None)
    last = submitted[-1]
    return SubmittedRun(root, job_ids, last["name"], last["time"], last["profile"])


def _order(line: Mapping[str, Any]) -> tuple[str, list[int]]:
    """By time; where the clock does not tell two lines apart, by Slurm's numbers, which grow."""
    return str(line["time"]), [int(number) for number in re.findall("[0-9]+", str(line["job_id"]))]


def find_runs(target: str, *, run_root: Path) -> list[SubmittedRun]:
    """The run of a directory or of a Slurm job's id, or the last one of a name; a sweep's are several.

    Looks below `run_root`, then among all that this user has submitted. Raises NoSuchRunError.
    """
    found = _of_directory(Path(target))
    if not found and _JOB_ID.fullmatch(target):
        found = _of_comment(target) or _of_job(target, _below(run_root)) or _of_job(target, _remembered())
    if not found:
        found = _of_name(target, _below(run_root)) or _of_name(target, _remembered())
    if not found:
        raise NoSuchRunError(
            f"{target}: nothing was submitted under this directory, name or job id, as far as can be seen in "
            f"{run_root} (--run-root) and from this account's own submissions; name the run's directory"
        )
    return found


def is_sweep(runs: Sequence[SubmittedRun]) -> bool:
    """Whether these runs were submitted together, as one array: its batch script lies beside them."""
    folders = {SlurmPaths(run.root.parent).folder for run in runs}
    return len(folders) == 1 and all(
        any((folder / f"{job_id.partition('_')[0]}_submission.sh").is_file() for job_id in run.job_ids)
        for folder in folders
        for run in runs
    )


def _of_directory(path: Path) -> list[SubmittedRun]:
    if not path.is_dir():
        return []
    run = read_submissions(path.absolute())
    return [run] if run else list(_children(path.absolute()))


def _of_comment(job_id: str) -> list[SubmittedRun]:
    """Of the directory that Slurm has with the job."""
    told = commands.job_comment(job_id)
    return _of_job(job_id, _of_directory(Path(told))) if told else []


def _of_job(job_id: str, runs: Iterable[SubmittedRun]) -> list[SubmittedRun]:
    return [run for run in runs if any(known == job_id or known.startswith(f"{job_id}_") for known in run.job_ids)]


def _of_name(name: str, runs: Iterable[SubmittedRun]) -> list[SubmittedRun]:
    named = [run for run in runs if name in (run.name, run.root.name, run.root.parent.name if is_sweep([run]) else "")]
    newest = max(named, key=lambda run: run.submitted_at, default=None)
    if newest is None or not is_sweep([newest]):
        return [newest] if newest else []
    return [run for run in named if run.root.parent == newest.root.parent]


def _remembered() -> Iterator[SubmittedRun]:
    """Without those that cannot be read any more: nobody has asked for them in particular."""
    for root in run_index.remembered():
        with contextlib.suppress(OSError, EventLogError):
            if run := read_submissions(root):
                yield run


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

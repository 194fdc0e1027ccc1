"""Slurm's commands, as far as the agent and the command line use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from launcher.slurm.job_view import JobView, parse_job
from launcher.slurm.standing import QueueEntry

_TIMEOUT_S = 30.0
_TRIES = 3
_BETWEEN_TRIES_S = 1.0
"""A controller that restarts, or has too much to do, refuses a call now and then."""
_NO_SUCH_JOB = "Invalid job id"


class SlurmError(ValueError):
    """Slurm is not there, or refuses; the sentence tells its own words."""


def show_job(job_id: str) -> JobView | None:
    """What Slurm's controller knows of a job; None if it has forgotten it, or does not answer."""
    _, words = _ask("scontrol", "show", "job", "--oneliner", job_id)
    return parse_job(words)


def requeue(job_id: str) -> tuple[bool, str]:
    """Have Slurm end a job and queue it again: whether it will, and in its words why not."""
    return call("scontrol", "requeue", job_id)


def _ask(*command: str) -> tuple[bool, str]:
    """As `call`, again and again while the controller does not answer: that it knows of no such job is an answer."""
    for _ in range(_TRIES - 1 if shutil.which(command[0]) else 0):
        succeeded, words = call(*command)
        if succeeded or _NO_SUCH_JOB in words:
            return succeeded, words
        time.sleep(_BETWEEN_TRIES_S)
    return call(*command)


def call(*command: str) -> tuple[bool, str]:
    """Run a command of Slurm's: whether it succeeded, and what it said. It fails where there is no Slurm."""
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def queue_entries(job_ids: Sequence[str]) -> tuple[dict[str, QueueEntry], str | None]:
    """What Slurm's controller knows of these jobs, or else its accounting, by id; and why Slurm cannot be asked.

    Jobs that it has forgotten are left out. Where it cannot be asked, a job that is left out may live all the same.
    """
    if not job_ids:
        return {}, None
    listed, wanted = ",".join(job_ids), set(job_ids)
    succeeded, text = _ask(
        "squeue", "--noheader", "--array", "--states=all", f"--jobs={listed}", "--format=%i|%T|%r|%N|%L"
    )
    trouble = None if succeeded or _NO_SUCH_JOB in text else f"Slurm cannot be asked: {text}"
    entries = parse_squeue(text) if succeeded else []
    if wanted - {entry.job_id for entry in entries}:
        options = ("--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={listed}")
        succeeded, text = call("sacct", *options)
        entries = [*(parse_sacct(text) if succeeded else ()), *entries]
    return {entry.job_id: entry for entry in entries if entry.job_id in wanted}, trouble


def parse_squeue(text: str) -> list[QueueEntry]:
    rows = (line.split("|") for line in text.splitlines())
    return [QueueEntry(*(word.strip() for word in row)) for row in rows if len(row) == 5]


def parse_sacct(text: str) -> list[QueueEntry]:
    """States may have more words, as in "CANCELLED by 1000"."""
    rows = (line.split("|") for line in text.splitlines())
    return [QueueEntry(row[0].strip(), row[1].split()[0]) for row in rows if len(row) == 2 and row[1].strip()]


def cancel(job_ids: Sequence[str]) -> tuple[bool, str]:
    """Have Slurm end these jobs for good: whether it will, and in its words why not."""
    return call("scancel", *job_ids)


def job_comment(job_id: str) -> str | None:
    """The comment that a job was submitted with: its run's directory. None if Slurm has forgotten the job."""
    _, text = call("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%k")
    lines = text.splitlines()
    return lines[0].strip() if lines and lines[0].startswith("/") else None

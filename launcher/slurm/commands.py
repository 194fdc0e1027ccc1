"""Slurm's commands, as far as the agent and the command line use them."""

from __future__ import annotations

import os
import subprocess
import time

from launcher.slurm.job_view import JobView, parse_job

_TIMEOUT_S = 30.0
_TRIES = 3
_BETWEEN_TRIES_S = 1.0
"""A controller that restarts, or has too much to do, refuses a call now and then."""


def show_job(job_id: str) -> JobView | None:
    """What Slurm's controller knows of a job; None if it has forgotten it, or does not answer."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_BETWEEN_TRIES_S)
        succeeded, words = call("scontrol", "show", "job", "--oneliner", job_id)
        if succeeded or "Invalid job id" in words:
            return parse_job(words)
    return None


def requeue(job_id: str) -> tuple[bool, str]:
    """Have Slurm end a job and queue it again: whether it will, and in its words why not."""
    return call("scontrol", "requeue", job_id)


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

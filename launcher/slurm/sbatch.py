"""The text of a batch script, and its submission, by submitit's SlurmExecutor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit

from launcher.slurm.commands import SlurmError


@dataclass(frozen=True)
class Batch:
    """A job to submit: one run, or an array of runs that differ in some settings."""

    folder: Path
    """For the script and what Slurm's own part of the job prints; absolute."""
    options: dict[str, Any]
    """Parameters of submitit's SlurmExecutor."""
    agent: str
    """The shell command that begins an agent; a run directory follows."""
    run_directories: Sequence[Path]

    def following(self, job_id: str) -> Batch:
        """The same, for when that job has ended, however it did; unless its user has cancelled it."""
        options = {**self.options, "dependency": f"afterany:{job_id}"}
        return replace(self, options=options, agent=f"{self.agent} --after {job_id}")

    @property
    def command(self) -> str:
        if len(self.run_directories) == 1:
            return f"{self.agent} {shlex.quote(str(self.run_directories[0]))}"
        return f'{self.agent} "${{runs[SLURM_ARRAY_TASK_ID]}}"'


class _AgentExecutor(submitit.SlurmExecutor):
    """Runs a command as it stands. What submitit usually runs unpickles a function from a file in the run's folder; a
    run's directory holds nothing that could run code, and an agent has the signals that submitit would handle."""

    def __init__(self, batch: Batch):
        super().__init__(batch.folder)
        options = dict(batch.options)
        if len(batch.run_directories) > 1:
            runs = " ".join(shlex.quote(str(directory)) for directory in batch.run_directories)
            options["setup"] = [*(options["setup"] or ()), f"runs=({runs})"]
        self.update_parameters(**options)
        if len(batch.run_directories) > 1:
            self.parameters["map_count"] = len(batch.run_directories)

    @classmethod
    def affinity(cls) -> int:
        return 1  # Also where there is no Slurm: a script can be written anywhere.

    def _num_tasks(self) -> int:
        return 1  # Of results, which nobody reads; a range of nodes has no number.

    def text(self, command: str) -> str:
        return str(self._make_submission_file_text(command, uid=""))

    def submit_command(self, command: str) -> str:
        return str(self._submit_command(command).job_id)


def script(batch: Batch) -> str:
    """The batch script."""
    return _AgentExecutor(batch).text(batch.command)


def submit(batch: Batch) -> str:
    """Hand the job to Slurm; its id. The script is kept in the folder under that id. Raises SlurmError."""
    require_slurm()
    batch.folder.mkdir(parents=True, exist_ok=True)
    with _outside_any_job():
        try:
            return _AgentExecutor(batch).submit_command(batch.command)
        except submitit.core.utils.FailedJobError as error:
            raise SlurmError(f"sbatch refused the job: {_last_line(error)}") from error


def test_only(batch: Batch) -> str:
    """What Slurm says of the job without taking it: when and where it would run. Raises SlurmError."""
    require_slurm()
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as file, _outside_any_job():
        file.write(script(batch))
        file.flush()
        done = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True)
    if done.returncode:
        raise SlurmError(f"sbatch would refuse the job: {_last_line(done.stderr)}")
    return done.stderr.strip().removeprefix("sbatch: ")


def require_slurm() -> None:
    """Raises SlurmError where there is no sbatch."""
    if shutil.which("sbatch") is None:
        raise SlurmError("sbatch is not on this machine's PATH: submit on a login node, or look with --dry-run")


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Without the variables of a job that this process may be part of: the new one would inherit them."""
    inherited = {name: os.environ.pop(name) for name in list(os.environ) if _is_of_a_job(name)}
    try:
        yield
    finally:
        os.environ.update(inherited)


def _is_of_a_job(name: str) -> bool:
    return name.startswith(("SLURM_", "SLURMD_", "SUBMITIT_")) and name != "SLURM_CONF"


def _last_line(words: object) -> str:
    return str(words).strip().splitlines()[-1].removeprefix("sbatch: ").removeprefix("error: ")

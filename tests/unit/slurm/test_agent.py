"""The agent's program where Slurm cannot be asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launcher.slurm import records
from launcher.slurm.records import SlurmPaths


def agent(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Of a first node on which no command of Slurm's is installed."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run(
        [sys.executable, "-m", "launcher.slurm.agent", str(root)],
        env={**outside, "PATH": str(root.parent), **environment},
        capture_output=True,
        text=True,
    )


def test_an_agent_without_scontrol_says_what_it_needs_and_lets_the_other_nodes_go(tmp_path: Path) -> None:
    done = agent(tmp_path / "run", SLURM_JOB_ID="7", SLURM_JOB_NODELIST="n[1-2]")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("resolute: scontrol does not name the job's nodes: ")
    assert "slurm.conf and the munge socket: a container that it runs in must have all three bound" in sentence
    ended = [line for line in records.read(SlurmPaths(tmp_path / "run").attempts) if line["event"] == "agent_ended"]
    assert [(line["job_id"], line["ending"], line["exit_code"]) for line in ended] == [("7", "failed", 1)]


def test_outside_any_job_an_agent_says_so(tmp_path: Path) -> None:
    done = agent(tmp_path / "run")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "SLURM_JOB_ID is not set" in done.stderr
    assert not (tmp_path / "run").exists()

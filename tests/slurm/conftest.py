"""One Slurm for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import drawn
from tests.slurm.cluster import PROGRAMS, Cluster, running_slurm
from tests.slurm.slurm_conf import Options

__all__ = ["drawn"]
_NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")


@pytest.fixture(scope="session")
def session_slurm() -> Iterator[Cluster]:
    missing = [name for name in _NEEDED if shutil.which(name, path=PROGRAMS) is None]
    if missing:
        pytest.skip(f"NO SLURM HERE: {', '.join(missing)} not installed; apt-get install slurm-wlm munge")
    with running_slurm(Options(proctrack=best_proctrack())) as cluster:
        yield cluster


@pytest.fixture
def slurm(session_slurm: Cluster) -> Iterator[Cluster]:
    """Three idle nodes; whatever the test leaves on them ends with it."""
    yield session_slurm
    session_slurm.clear()


def best_proctrack() -> str:
    """By cgroup, as clusters do it, where that can be."""
    freezer = Path("/sys/fs/cgroup/freezer")
    return "cgroup" if os.geteuid() == 0 and os.access(freezer / "cgroup.procs", os.W_OK) else "pgid"

"""The first node's agent on a disk that takes nothing, where there is no Slurm to ask."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launcher.run_directory import open_run_directory
from launcher.slurm.head_agent import HeadAgent
from launcher.slurm.inbox import open_inbox
from launcher.slurm.records import SlurmPaths, Stay

FULL = Path("/dev/full")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmPaths:
    """Of a run whose log takes nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_run_directory(tmp_path / "run"):
        pass
    paths = SlurmPaths(tmp_path / "run")
    paths.log.parent.mkdir(exist_ok=True)
    paths.log.symlink_to(FULL)
    return paths


def lead(paths: SlurmPaths, *driver: str) -> int:
    """The exit code."""
    with open_inbox() as inbox:
        return HeadAgent(paths.root, [*driver], stay=Stay("7", 0), lead_s=30).run(inbox, environment={})


def test_a_disk_that_becomes_full_ends_neither_the_driver_nor_its_agent(paths: SlurmPaths) -> None:
    fill = f"from pathlib import Path; p = Path({str(paths.attempts)!r}); p.unlink(); p.symlink_to({str(FULL)!r})"
    assert lead(paths, sys.executable, "-c", fill) == 0
    assert paths.attempts.is_symlink()


def test_an_agent_that_cannot_show_itself_in_the_records_starts_nothing(paths: SlurmPaths, tmp_path: Path) -> None:
    paths.attempts.parent.mkdir(exist_ok=True)
    paths.attempts.symlink_to(FULL)
    started = tmp_path / "started"
    with pytest.raises(OSError, match="attempts"):
        lead(paths, sys.executable, "-c", f"open({str(started)!r}, 'w')")
    assert not started.exists()

"""Scripts in the place of Slurm's commands, alone on PATH but for the shell's own needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.slurm import commands


class StandIns:
    """A PATH without Slurm, and the commands that a test puts there."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self._folder = folder / "bin"
        self._folder.mkdir()
        for needed in ("sh", "cat"):
            found = shutil.which(needed)
            assert found is not None
            (self._folder / needed).symlink_to(found)
        patch.setenv("PATH", str(self._folder))

    def command(self, name: str, script: str) -> None:
        """Lines of sh; in $times stands how often the command has been called, with this call."""
        counter = self._folder / f"{name}.calls"
        counter.write_text("")
        count = f'echo "$@" >> {counter}; times=0; while read -r _; do times=$((times + 1)); done < {counter}'
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{count}\n{script}\n")
        path.chmod(0o755)

    def calls(self, name: str) -> int:
        return len(self.arguments(name))

    def arguments(self, name: str) -> list[str]:
        """Of each call, in a line."""
        return (self._folder / f"{name}.calls").read_text().splitlines()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two questions to a controller that does not answer."""
    monkeypatch.setattr(commands, "_BETWEEN_TRIES_S", 0.0)

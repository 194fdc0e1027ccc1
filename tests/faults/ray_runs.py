"""A run under Ray in a process of its own, followed by its events, and its processes by their names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from launcher.event_log import read_events
from launcher.paths import RunPaths

DEADLINE_S = 240.0
_ROOT = Path(__file__).parents[2]
_POLL_S = 0.02


class RayRunProcess:
    """`command`, which runs under Ray in the run directory `root`; on leaving, it and all of its Ray are gone."""

    def __init__(self, command: list[str], root: Path, *, output: Path):
        self.paths = RunPaths(root)
        self._output = output
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        with output.open("ab") as log:
            self.driver = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._keepers: set[int] = set()

    def __enter__(self) -> RayRunProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.kill()
        self.driver.wait()
        wait_until(lambda: not self.left_behind(), "the keeper ends Ray with its driver")

    @property
    def output(self) -> str:
        return self._output.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The run's events of that name so far."""
        if not self.paths.events.is_file():
            return []
        return [event for event in read_events(self.paths.events) if event["event"] == name]

    def await_events(self, name: str, number: int) -> dict[str, Any]:
        """The event of that name that makes them `number`. Fails if the run ends before."""

        def there() -> bool:
            over = self.driver.poll() is not None
            enough = len(self.events(name)) >= number
            assert enough or not over, f"the run ended ({self.driver.returncode}) before:\n{self.output}"
            return enough

        wait_until(there, f"{number} times {name}")
        return self.events(name)[number - 1]

    def await_event_after(self, name: str, moment: float) -> dict[str, Any]:
        """The first event of that name at or after `moment`, in seconds since 1970."""

        def later() -> list[dict[str, Any]]:
            return [e for e in self.events(name) if datetime.fromisoformat(e["time"]).timestamp() >= moment]

        wait_until(lambda: later() or self.driver.poll() is not None, f"another {name}")
        assert later(), f"the run ended ({self.driver.returncode}) before:\n{self.output}"
        return later()[0]

    def await_end(self) -> int:
        """The driver's exit code."""
        return self.driver.wait(DEADLINE_S)

    def keeper(self) -> psutil.Process:
        """The process that keeps this run's Ray; its number is the session of Ray's processes."""
        children = psutil.Process(self.driver.pid).children()
        (keeper,) = (child for child in children if "ray_keeper.py" in " ".join(child.cmdline()))
        self._keepers.add(keeper.pid)
        return keeper

    def ray_processes(self, name: str = "") -> list[psutil.Process]:
        """This run's processes of Ray, oldest first, with `name` in the name that they show."""
        found = [process for process in in_session(self.keeper().pid) if name in _shown_name(process)]
        return sorted(found, key=lambda process: process.create_time())

    def left_behind(self) -> list[psutil.Process]:
        """What lives of the sessions that `keeper` has seen."""
        return [process for keeper in self._keepers for process in in_session(keeper)]


def resolute_run(job: Path, root: Path, *overrides: str) -> list[str]:
    """The command for a run as a user starts it."""
    return [sys.executable, "-m", "launcher", "run", str(job), "--run-dir", str(root), *overrides]


def nodes_run(job: Path, root: Path, *, cpus: int) -> list[str]:
    """The command for a run whose Ray has `cpus` here, and whose address and secret are the output's first line."""
    return [sys.executable, "-m", "tests.faults.nodes_driver", str(job), str(root), "127.0.0.5", str(cpus)]


def in_session(session: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Fails if it does not come to hold within DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(_POLL_S)


def _shown_name(process: psutil.Process) -> str:
    try:
        return f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return ""

"""Many processes that want the same run directory at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.run_directory import open_run_directory

ROOT = Path(__file__).parents[2]
RACERS = 50
RACE = """
import multiprocessing, os, sys
from pathlib import Path
from launcher.run_directory import OwnedError, open_run_directory

def race(root, barrier, outcomes):
    barrier.wait(120)
    try:
        with open_run_directory(root):
            outcomes.put("owner")
            barrier.wait(120)  # Until all have tried.
    except OwnedError as error:
        outcomes.put(str(error))
        barrier.wait(120)

root, racers = Path(sys.argv[1]), int(sys.argv[2])
context = multiprocessing.get_context("fork")
barrier, outcomes = context.Barrier(racers), context.Queue()
processes = [context.Process(target=race, args=(root, barrier, outcomes)) for _ in range(racers)]
for process in processes:
    process.start()
for _ in processes:
    print(outcomes.get(timeout=120))
for process in processes:
    process.join()
"""


@pytest.mark.parametrize("existing", [False, True])
def test_of_fifty_racing_starts_exactly_one_owns_the_directory(tmp_path: Path, existing: bool) -> None:
    root = tmp_path / "run"
    if existing:
        with open_run_directory(root):
            pass
    command = [sys.executable, "-c", RACE, str(root), str(RACERS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = done.stdout.splitlines()
    assert len(outcomes) == RACERS
    assert outcomes.count("owner") == 1
    assert sum(line.startswith(f"{root} belongs to ") for line in outcomes) == RACERS - 1
    with open_run_directory(root):
        pass

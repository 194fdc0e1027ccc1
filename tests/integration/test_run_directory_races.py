"""Many processes that want the same run directory at once, on a file system that knows no locks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.ownership import this_process
from launcher.paths import RunPaths
from launcher.run_directory import open_run_directory

ROOT = Path(__file__).parents[2]
RACERS = 50
RACE = """
import errno, fcntl, multiprocessing, os, sys
from pathlib import Path
from launcher import ownership
from launcher.run_directory import OwnedError, open_run_directory

def no_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = fcntl.lockf = fcntl.fcntl = no_locks

def race(root, barrier, outcomes, silent_beats):
    if machines == "many":
        ownership._kernel = lambda: f"the kernel of {os.getpid()}"
    barrier.wait(120)
    try:
        with open_run_directory(root, beat_s=0.05, silent_beats=silent_beats) as run:
            run.assert_owned()
            outcomes.put("owner")
            barrier.wait(120)  # Until all have tried.
            run.assert_owned()
    except OwnedError as error:
        outcomes.put(str(error))
        barrier.wait(120)

root, racers, machines, silent_beats = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
context = multiprocessing.get_context("fork")
barrier, outcomes = context.Barrier(racers), context.Queue()
processes = [context.Process(target=race, args=(root, barrier, outcomes, silent_beats)) for _ in range(racers)]
for process in processes:
    process.start()
for _ in processes:
    print(outcomes.get(timeout=120))
for process in processes:
    process.join()
    assert process.exitcode == 0
"""


def outcomes_of_a_race(root: Path, *, machines: str, silent_beats: int) -> list[str]:
    command = [sys.executable, "-c", RACE, str(root), str(RACERS), machines, str(silent_beats)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# Between machines only patience tells the dead from the living, so a race over a dead one there would be decided by the
# speed of this machine; on one machine a process that cannot be looked at is the dead one, which any patience finds.
@pytest.mark.parametrize(
    ("before", "machines", "silent_beats"),
    [
        ("nothing", "one", 2000),
        ("nothing", "many", 2000),
        ("a run that ended", "one", 2000),
        ("a run that ended", "many", 2000),
        ("a run that died here", "one", 2000),
        ("a run that died elsewhere", "one", 60),
    ],
)
def test_of_fifty_racing_starts_exactly_one_owns_the_directory(
    tmp_path: Path, before: str, machines: str, silent_beats: int
) -> None:
    root = tmp_path / "run"
    if before != "nothing":
        with open_run_directory(root):
            pass
    if before.startswith("a run that died"):
        elsewhere = {"kernel": "elsewhere"} if before.endswith("elsewhere") else {}
        dead = this_process().model_copy(update={"started": 1, **elsewhere})
        RunPaths(root).claim(1).write_bytes(dead.to_bytes())

    outcomes = outcomes_of_a_race(root, machines=machines, silent_beats=silent_beats)

    assert len(outcomes) == RACERS
    assert outcomes.count("owner") == 1
    assert sum(line.startswith(f"{root} belongs to ") for line in outcomes) == RACERS - 1
    with open_run_directory(root):
        pass

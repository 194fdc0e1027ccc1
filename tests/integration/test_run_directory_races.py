"""Many processes that want the same run directory at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from launcher.run_directory import OwnedError, open_run_directory

RACERS = 50
DEADLINE_S = 120


def race(root: Path, barrier: Barrier, outcomes: Queue[str]) -> None:
    """Start together with the others; whoever owns the directory keeps it until all have tried."""
    barrier.wait(DEADLINE_S)
    try:
        with open_run_directory(root):
            outcomes.put("owner")
            barrier.wait(DEADLINE_S)
    except OwnedError as error:
        outcomes.put(str(error))
        barrier.wait(DEADLINE_S)


@pytest.mark.parametrize("existing", [False, True])
def test_of_fifty_racing_starts_exactly_one_owns_the_directory(tmp_path: Path, existing: bool) -> None:
    root = tmp_path / "run"
    if existing:
        with open_run_directory(root):
            pass
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["launcher.run_directory"])
    barrier, outcomes = context.Barrier(RACERS), context.Queue()
    racers = [context.Process(target=race, args=(root, barrier, outcomes)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    told = [outcomes.get(timeout=DEADLINE_S) for _ in racers]
    for racer in racers:
        racer.join(DEADLINE_S)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    assert told.count("owner") == 1
    refused = [sentence for sentence in told if sentence != "owner"]
    assert all("belongs to" in sentence for sentence in refused)
    with open_run_directory(root):
        pass

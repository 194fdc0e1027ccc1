"""Signals to random processes of a run at random times: where each rank stopped, and how long it took.

    python -m tests.faults.signal_engine --signals 100 --seed 0

The driver's handler, coordinator, run_worker and checkpoints are the product's own. Ranks are forked, without Ray, and
have the signals blocked as all of Ray's processes have: one that hits a rank is not felt, and the driver gets SIGTERM.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from launcher.checkpoint import newest_valid
from launcher.coordinator import Stop
from launcher.signals import STOP_SIGNALS
from tests.faults.attempts import DRIVER
from tests.faults.ledger import read_ledger
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import TinyRun, draw_data, make_job

_WORKERS = 2
_EPOCHS = 400
"""More than are trained before the stop."""
_WITHIN_S = 1.0
"""The signal comes at most so long after the run has begun."""
_UNFELT_S = 0.1


@dataclass(frozen=True)
class Hit:
    """One signal, and what it came to."""

    number: signal.Signals
    target: int
    """A rank, or DRIVER."""
    seconds: float
    """From the driver's signal to the end of all processes."""
    wrong: str
    """Empty if all is as it should be."""


def strike(nursery: Nursery, data: Path, folder: Path, chance: random.Random) -> Hit:
    """Start a run, send one process of it one signal, and look at how it ends."""
    phase = {"epochs": _EPOCHS, "resolution": 12, "global_batch": 12}
    run = TinyRun(folder, make_job(data, workers=_WORKERS, phases=[phase], evaluation={"every_epochs": _EPOCHS}))
    number, target = chance.choice(STOP_SIGNALS), chance.choice([DRIVER, *range(_WORKERS)])
    attempt = run.attempt()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(nursery.run, attempt)
        while not attempt.traces.beginning.exists():
            assert not ending.done(), ending.result().error
            time.sleep(0.01)
        time.sleep(chance.uniform(0, _WITHIN_S))
        driver = _driver()
        ranks = sorted(driver.children(), key=lambda rank: rank.create_time())
        (driver if target == DRIVER else ranks[target]).send_signal(number)
        unfelt = target == DRIVER or _goes_on(run, ranks)
        if target != DRIVER:
            driver.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        outcome = ending.result()
        seconds = time.monotonic() - sent
    expected = f"received {(number if target == DRIVER else signal.SIGTERM).name}"
    wrong = "" if unfelt else f"rank {target} felt it"
    return Hit(number, target, seconds, wrong or _wrong(run, outcome.end, expected) + outcome.error)


def _goes_on(run: TinyRun, ranks: list[psutil.Process]) -> bool:
    """Whether ranks that got a signal live, and train on."""
    before = len(read_ledger(run.attempts))
    time.sleep(_UNFELT_S)
    while len(read_ledger(run.attempts)) == before and all(_lives(rank) for rank in ranks):
        time.sleep(_UNFELT_S)
    return all(_lives(rank) for rank in ranks)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _wrong(run: TinyRun, end: object, reason: str) -> str:
    """What is wrong with a run that should have stopped: the same last step on all ranks, and all of it saved."""
    if not isinstance(end, Stop) or end.reason != reason:
        return f"ended with {end} instead of a stop for {reason!r}; "
    steps = Counter(step.position for step in read_ledger(run.attempts))
    if uneven := sorted(position for position, ranks in steps.items() if ranks != _WORKERS):
        return f"not every rank trained the steps at {uneven}; "
    last = max(steps, default=None)
    reached = run.plan.after(last, run.plan.rows[last.epoch].global_batch) if last else end.position
    saved = newest_valid(run.paths.checkpoints).newest
    saved_at = saved.position if saved else None
    if reached != end.position or (last is not None and saved_at != end.position):
        return f"trained to {reached}, stopped at {end.position}, saved {saved_at}; "
    return ""


def _driver() -> psutil.Process:
    (nursery,) = (child for child in psutil.Process().children() if "tests.faults.nursery" in child.cmdline())
    (driver,) = nursery.children()
    return driver


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--signals", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    chance = random.Random(options.seed)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup runs would rightly ignore it.
    with tempfile.TemporaryDirectory(prefix="signals-") as folder, Nursery() as nursery:
        data = draw_data(Path(folder, "data"))
        hits = [strike(nursery, data, Path(folder, f"run{n}"), chance) for n in range(options.signals)]
    for target, name in ((DRIVER, "driver"), *((rank, f"rank {rank}") for rank in range(_WORKERS))):
        counts = Counter(hit.number.name for hit in hits if hit.target == target)
        print(f"{name:<8} {sum(counts.values()):>4}  " + "  ".join(f"{n} {c}" for n, c in sorted(counts.items())))
    seconds = [hit.seconds for hit in hits]
    print(f"seconds until all processes were gone: median {statistics.median(seconds):.2f}, maximum {max(seconds):.2f}")
    wrong = [hit for hit in hits if hit.wrong]
    print(f"{len(hits)} signals, {len(hits) - len(wrong)} ended in the same saved step on all ranks")
    for hit in wrong:
        print(f"{hit.number.name} to {hit.target}: {hit.wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

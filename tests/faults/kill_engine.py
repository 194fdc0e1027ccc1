"""Kills a run at named failpoints, resumes it, and compares what it ends with to a run that was never killed.

`make faults KILLS=200`, or: python -m tests.faults.kill_engine --kills 200 --seed 0

Compared are the SHA-256 of the final weights and of everything in the checkpoint of each phase boundary (weights, norm
statistics, optimizer, average, random numbers, facts), the accuracies, and the ledger: which samples each rank trained
in which step, from which pixels, at which learning rate.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from launcher.coordinator import Done
from launcher.failpoints import POINTS
from tests.faults.attempts import DRIVER, Kill, Outcome
from tests.faults.ledger import Step, faults, read_ledger
from tests.faults.nursery import Nursery
from tests.faults.tiny_run import TinyRun, draw_data, make_job

WORLD_SIZES = (2, 3)
MOST_KILLS_IN_A_RUN = 4


@dataclass(frozen=True)
class Ending:
    """All that two runs of one job must agree in."""

    sums: dict[str, str]
    evaluations: dict[tuple[int, str, int], float]
    ledger: list[Step]

    @classmethod
    def of(cls, run: TinyRun) -> Ending:
        return cls(run.sums(), run.evaluations(), read_ledger(run.attempts))

    def differences(self, other: Ending) -> list[str]:
        """What differs, by name."""
        names = sorted(name for name in self.sums.keys() | other.sums if self.sums.get(name) != other.sums.get(name))
        if self.evaluations != other.evaluations:
            names.append("evaluations")
        return names + (["ledger"] if self.ledger != other.ledger else [])


@dataclass(frozen=True)
class Reference:
    """A run that nothing happened to."""

    ending: Ending
    passages: dict[tuple[str, int], int]
    """How often each process came past each failpoint."""


@dataclass
class Trial:
    """A run that was killed at least once, and what its end differs in from the reference's."""

    workers: int
    kills: list[Kill] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)
    """Where the run stood at each kill."""
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


class EngineError(RuntimeError):
    """An attempt failed otherwise than by the kill that was ordered."""


class KillEngine:
    """Runs trials in `folder`; the same seed orders the same kills."""

    def __init__(self, nursery: Nursery, folder: Path, *, seed: int):
        self._nursery = nursery
        self._folder = folder
        self._data = draw_data(folder / "data")
        self._random = random.Random(seed)
        self._hits: Counter[str] = Counter()
        self._num_runs = 0
        self._references = {workers: self._reference(workers) for workers in WORLD_SIZES}

    def trials(self, num_kills: int) -> Iterator[Trial]:
        """Trials until so many kills have been carried out."""
        while self._hits.total() < num_kills:
            trial = self._trial(num_kills - self._hits.total())
            if trial.kills:
                yield trial

    def _new_run(self, workers: int) -> TinyRun:
        self._num_runs += 1
        return TinyRun(self._folder / f"run{self._num_runs:03d}", make_job(self._data, workers=workers))

    def _reference(self, workers: int) -> Reference:
        run = self._new_run(workers)
        _require_done(self._nursery.run(run.attempt()))
        ending = Ending.of(run)
        lost = faults(ending.ledger, run.plan)
        if lost:
            raise EngineError("; ".join(lost))
        passages = {(point, rank): n for rank in range(DRIVER, workers) for point, n in run.passages(rank).items()}
        return Reference(ending, passages)

    def _trial(self, most_kills: int) -> Trial:
        workers = self._random.choice(WORLD_SIZES)
        planned = min(most_kills, self._random.randint(1, MOST_KILLS_IN_A_RUN))
        run, trial = self._new_run(workers), Trial(workers)
        done = False
        while not done:
            kill = self._choose(workers, planned) if len(trial.kills) < planned else None
            outcome = self._nursery.run(run.attempt(kill=kill))
            trial.seconds += outcome.seconds
            if kill is not None and run.attempts[-1].killed.exists():
                trial.kills.append(kill)
                trial.phases.append(_phase_reached(run))
                self._hits[kill.point] += 1
            else:
                _require_done(outcome)
                done = True
        trial.differences = Ending.of(run).differences(self._references[workers].ending)
        return trial

    def _choose(self, workers: int, planned: int) -> Kill:
        """One of the points hit least so far, in a process that comes past it, early enough to leave room for more."""
        passages = self._references[workers].passages
        points = sorted({point for point, _ in passages})
        fewest = min(self._hits[point] for point in points)
        point = self._random.choice([point for point in points if self._hits[point] == fewest])
        rank = self._random.choice([rank for at, rank in sorted(passages) if at == point])
        return Kill(point, rank, self._random.randint(1, -(-passages[point, rank] // planned)))


def _require_done(outcome: Outcome) -> None:
    if not isinstance(outcome.end, Done):
        raise EngineError(f"a run ended by {outcome.end} and not by its kill or its end\n{outcome.error}")


def _phase_reached(run: TinyRun) -> int:
    """The phase of the last step that any rank trained."""
    trained = read_ledger(run.attempts)
    return run.plan.rows[trained[-1].position.epoch].phase if trained else 0


def table(trials: list[Trial]) -> str:
    """A row for each failpoint: kills, in which processes, how many of them in runs that ended identically, seconds."""
    rows = [("point", "kills", "processes", "identical", "s/kill")]
    for point in sorted(POINTS):
        hits = [(trial, kill) for trial in trials for kill in trial.kills if kill.point == point]
        if not hits:
            continue
        processes = sorted({"driver" if kill.rank == DRIVER else f"{kill.rank}/{t.workers}" for t, kill in hits})
        seconds = statistics.mean(trial.seconds / len(trial.kills) for trial, _ in hits)
        identical = sum(not trial.differences for trial, _ in hits)
        rows.append((point, str(len(hits)), " ".join(processes), str(identical), f"{seconds:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def summary(trials: list[Trial]) -> str:
    """The table's sums in a sentence."""
    kills = sum(len(trial.kills) for trial in trials)
    identical = sum(not trial.differences for trial in trials)
    phases = Counter(phase for trial in trials for phase in trial.phases)
    places = ", ".join(f"{times} in phase {phase}" for phase, times in sorted(phases.items()))
    seconds = sum(trial.seconds for trial in trials)
    return (
        f"{kills} kills in {len(trials)} runs ({places}), "
        f"{identical} of {len(trials)} runs identical, {seconds:.0f} s, {seconds / kills:.1f} s a kill"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, Nursery() as nursery:
        for trial in KillEngine(nursery, Path(folder), seed=options.seed).trials(options.kills):
            trials.append(trial)
            story = ", ".join(f"{kill.point} of {kill.rank} at {kill.occurrence}" for kill in trial.kills)
            print(f"{trial.workers} ranks, killed at {story}: {trial.differences or 'identical'}", flush=True)
    print(f"\n{table(trials)}\n\n{summary(trials)}")
    return 1 if any(trial.differences for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())

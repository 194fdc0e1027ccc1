"""Whatever Slurm does to a run, it ends with the weights of an undisturbed one: every case, on a real Slurm and Ray.

`make slurm-cases`, or: python -m tests.slurm.cases [--only NAME] [--json]

Each run has two nodes with two CPU workers each. For each case a row: how Slurm's job ended, restarts, attempts,
samples lost or repeated in what the final weights were trained on, whether the weights are those of the undisturbed
run bit for bit, processes left over; and the longest of the seconds from a signal to the durable checkpoint, from it to
the end of the stay's last process, and from an allocation to the first step in it. The exit code is 1 if a promise is
broken; times are told, not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.paths import RunPaths
from tests.integration.toy import final_sums
from tests.slurm import disturbances
from tests.slurm.cluster import Cluster, running_slurm
from tests.slurm.conftest import best_proctrack
from tests.slurm.evidence import Evidence, gather
from tests.slurm.slurm_conf import Options
from tests.slurm.trial import Trial, stray


@dataclass(frozen=True)
class Case:
    """What happens to a run, and how it must end."""

    disturb: Callable[[Trial], Trial]
    site: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[str, ...] = ("COMPLETED",)
    """In which Slurm's jobs end, one after the other."""
    restarts: int = 1
    """Of the last job."""
    same_world: bool = True
    """Whether the same number of workers trains throughout: then the weights are those of the undisturbed run."""


@dataclass(frozen=True)
class Row:
    """What a case came to."""

    case: str
    states: str
    restarts: int
    attempts: int
    lost: int
    repeated: int
    identical: bool | None
    """None where another number of workers trains."""
    to_checkpoint_s: float | None
    to_gone_s: float | None
    to_step_s: float | None
    strays: int
    broken: tuple[str, ...]
    """The promises that were not kept, a sentence each."""


class Bench:
    """A Slurm, and a run on it that nothing happened to."""

    def __init__(self, slurm: Cluster, folder: Path):
        self.slurm = slurm
        self._folder = folder
        self._data = _draw(folder / "data")
        reference = self.start("reference")
        state = reference.await_end()
        assert state == "COMPLETED", f"the undisturbed run: {state}\n{reference.last_words}"
        self.sums = final_sums(RunPaths(reference.root))
        self.evidence = gather(reference.attempts)

    def start(self, name: str, *, site: Mapping[str, Any] | None = None) -> Trial:
        trial = Trial(self.slurm, self._folder, self._data, name, site=site or {})
        trial.submit()
        return trial

    def carry_out(self, name: str, case: Case) -> Row:
        self.slurm.clear()
        trial = self.start(re.sub("[^a-zA-Z0-9]+", "-", name), site=case.site)
        trial.await_steps(10)
        judged = case.disturb(trial)
        judged.await_end()
        return self._judge(name, case, judged)

    def _judge(self, name: str, case: Case, trial: Trial) -> Row:
        left = stray(self.slurm)
        states = tuple(self.slurm.job(job_id)["JobState"] for job_id in trial.job_ids)
        assert states == case.states, f"jobs ended {states} rather than {case.states}"
        restarts = int(trial.job["Restarts"])
        evidence = gather(trial.attempts)
        same = final_sums(RunPaths(trial.root)) == self.sums if case.same_world else None
        broken = [
            *([f"{restarts} restarts rather than {case.restarts}"] if restarts != case.restarts else []),
            *([f"still running: {', '.join(left)}"] if left else []),
            *evidence.astray,
            *self._differences(evidence, case, same),
        ]
        return Row(
            case=name,
            states=", ".join(states),
            restarts=restarts,
            attempts=len(trial.events("attempt_started")),
            lost=evidence.lost,
            repeated=evidence.repeated,
            identical=same,
            to_checkpoint_s=_to_checkpoint(trial),
            to_gone_s=_to_gone(trial),
            to_step_s=_to_step(trial),
            strays=len(left),
            broken=tuple(broken),
        )

    def _differences(self, evidence: Evidence, case: Case, same: bool | None) -> list[str]:
        if not case.same_world:
            return []
        words = [] if same else ["other weights than those of the undisturbed run"]
        trained_the_same = evidence.ledger == self.evidence.ledger
        return words if trained_the_same else [*words, "another ledger than that of the undisturbed run"]


def _moment(line: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _to_checkpoint(trial: Trial) -> float | None:
    """From the agent's request to stop to the first checkpoint after it, of stays that were asked."""
    saved = [_moment(event) for event in trial.events("checkpoint_saved")]
    ended = [_moment(line) for line in trial.records("driver_ended")] + [float("inf")]
    spans = []
    for asked in map(_moment, trial.records("stop_asked")):
        until = min(moment for moment in ended if moment >= asked)
        spans += [moment - asked for moment in saved if asked <= moment <= until][:1]
    return max(spans, default=None)


def _to_gone(trial: Trial) -> float | None:
    """From the signal, or from whatever befell the stay without one, to its last process's end."""
    asked = [_moment(line) for line in trial.records("stop_asked")]
    spans = []
    for departure in trial.departures:
        if departure.ended is not None:
            signalled = [moment for moment in asked if departure.began <= moment <= departure.ended]
            spans.append(departure.ended - min(signalled, default=departure.began))
    return max(spans, default=None)


def _to_step(trial: Trial) -> float | None:
    """From Slurm's grant of nodes, which it tells to the second, to the end of the first step there."""
    attempts = trial.attempts
    spans = []
    for granted, before in trial.allocated:
        stepped = [attempt.first_step.stat().st_mtime for attempt in attempts[before:] if attempt.first_step.exists()]
        spans += [moment - granted for moment in stepped][:1]
    return max(spans, default=None)


CASES = {
    "undisturbed": Case(disturbances.undisturbed, restarts=0),
    "preempted in mid-epoch": Case(disturbances.preempted),
    "preempted, GraceTime=0": Case(disturbances.preempted, {"partition": "nograce"}),
    "preempted, PreemptMode=CANCEL": Case(disturbances.preempted, {"partition": "cancel"}),
    "preempted, CANCEL, GraceTime=0; resolute resume": Case(
        disturbances.preempted_for_good, {"partition": "cancelnow"}, states=("PREEMPTED", "COMPLETED"), restarts=0
    ),
    "preempted ten times": Case(disturbances.preempted_ten_times, restarts=10),
    "at its time limit, three times": Case(disturbances.out_of_time, {"signal_lead_s": 1}, restarts=3),
    "warned of its time limit": Case(disturbances.warned_of_the_limit, {"signal_lead_s": 60}),
    "scontrol requeue": Case(disturbances.requeued),
    "scancel --signal=USR2": Case(disturbances.signalled),
    "scancel; resolute resume": Case(disturbances.cancelled, states=("CANCELLED", "COMPLETED"), restarts=0),
    "driver SIGKILLed": Case(disturbances.driver_killed, restarts=0),
    "slurmd killed": Case(disturbances.slurmd_killed),
    "power cut of the head node": Case(disturbances.cut(0)),
    "power cut of the other node": Case(disturbances.cut(1)),
    "power cut of the other node, elastic": Case(
        disturbances.cut_and_gone_on_without, {"nodes": {"min": 1, "max": 2}}, restarts=0, same_world=False
    ),
    "power cut of the head node, elastic": Case(disturbances.cut(0), {"nodes": {"min": 1, "max": 2}}, same_world=False),
    "2 nodes, then 1, then 2": Case(
        disturbances.on_one_node_and_on_two_again, {"nodes": {"min": 1, "max": 2}}, restarts=2, same_world=False
    ),
    "beside an older run that is killed": Case(disturbances.beside_an_older_one_that_is_killed, restarts=0),
    "beside a younger run that is cancelled": Case(disturbances.beside_a_younger_one_that_is_cancelled, restarts=0),
    "beside an older run that ends": Case(disturbances.beside_an_older_one_that_ends, restarts=0),
}


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    heads = (
        *("case", "Slurm's state", "restarts", "attempts", "lost / repeated", "weights"),
        *("to checkpoint", "to all gone", "to first step", "strays"),
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = (
            *(row.case, row.states, str(row.restarts), str(row.attempts), f"{row.lost} / {row.repeated}"),
            {True: "identical", False: "DIFFERENT", None: "of its own plan"}[row.identical],
            *(_seconds(row.to_checkpoint_s), _seconds(row.to_gone_s), _seconds(row.to_step_s), str(row.strays)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds(span: float | None) -> str:
    return "-" if span is None else f"{span:.1f} s"


def _draw(folder: Path) -> Path:
    """Of the size of the tests' data: 250 samples leave a tail."""
    folder.mkdir(parents=True)
    parts = [
        (folder / "train.beton", DrawnSamples(seed=0, size=24, num_samples=250)),
        (folder / "val.beton", DrawnSamples(seed=0, size=24, num_samples=57, validation=True)),
    ]
    write_betons(parts, Encoding(), num_workers=1)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="cases with this in their name; repeatable")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, rather than a table")
    parser.add_argument("--folder", type=Path, help="a new folder for the runs, which stay there")
    options = parser.parse_args()
    wanted = {name: case for name, case in CASES.items() if any(part in name for part in options.only or [""])}
    rows, failed = [], False
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cases-")))
        slurm = stack.enter_context(running_slurm(Options(proctrack=best_proctrack())))
        bench = Bench(slurm, folder)
        for name, case in wanted.items():
            try:
                row = bench.carry_out(name, case)
            except AssertionError as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            rows.append(row)
            told = json.dumps(asdict(row)) if options.json else f"{name}: {'; '.join(row.broken) or 'as promised'}"
            print(told, flush=True)
    if not options.json:
        print(f"\n{table(rows)}")
    return 1 if failed or any(row.broken for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

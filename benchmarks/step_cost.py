"""What leases and background checkpoints cost: one run whose epochs have them by turns.

    python -m benchmarks.step_cost [--model resnet50] [--epochs 12] [--mode single|ray]

Even epochs are trained in one lease and save nothing; odd ones in leases of 2 s with a checkpoint every
`--save-every-s`. Time is the coordinator's, from an epoch's first directive to the next one's: waiting for a save is in
it. Each odd epoch is divided by the mean of its two neighbours; the median of these ratios and all the figures are
printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.config import JobConfig
from launcher.coordinator import Cadence, Coordinator, Directive
from launcher.events import CheckpointSaved, Event
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.run_setup import RunSetup, check_job, prepare_run

NEVER = 10**9


class TakingTurns(Coordinator):
    """Changes its cadence from epoch to epoch, and notes when each began."""

    notes: Path
    save_every_s: float

    def next(
        self, *, rank: int, turn: int, position: Position, samples_per_s: float | None = None, now_s: float = 0.0
    ) -> Directive:
        kept = position.epoch % 2 == 1
        self.cadence = Cadence(
            evaluate_every_epochs=0,
            checkpoint_every_epochs=NEVER,
            checkpoint_every_s=self.save_every_s if kept else None,
            lease_s=2.0 if kept else NEVER,
        )
        if rank == 0 and position.samples_done == 0:
            with self.notes.open("a") as notes:
                notes.write(json.dumps({"epoch": position.epoch, "at_s": now_s, "turn": turn}) + "\n")
        return super().next(rank=rank, turn=turn, position=position, samples_per_s=samples_per_s, now_s=now_s)


@dataclasses.dataclass(frozen=True)
class TakingTurnsSetup(RunSetup):
    save_every_s: float = 30.0

    def coordinator(self) -> Coordinator:
        coordinator = TakingTurns(self.plan, start=self.start, cadence=Cadence())
        coordinator.notes = self.root / "turns.jsonl"
        coordinator.save_every_s = self.save_every_s
        return coordinator


def epoch_seconds(notes: Path) -> list[float]:
    """Seconds of each epoch, from the first question at its start to the first at the next one's."""
    began: dict[int, float] = {}
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        began.setdefault(note["epoch"], note["at_s"])
    return [began[epoch + 1] - began[epoch] for epoch in sorted(began)[:-1]]


def ratios(seconds: list[float]) -> list[float]:
    """Each odd epoch's time over its neighbours' mean; the first epoch, which warms up, is left out."""
    return [2 * seconds[odd] / (seconds[odd - 1] + seconds[odd + 1]) for odd in range(3, len(seconds) - 1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="per epoch")
    parser.add_argument("--epochs", type=int, default=13)
    parser.add_argument("--save-every-s", type=float, default=30.0)
    parser.add_argument("--mode", choices=["single", "ray"], default="single")
    options = parser.parse_args()
    workers = 1 if options.mode == "single" else 2
    with tempfile.TemporaryDirectory(prefix="step-cost-") as folder:
        root = Path(folder) / "run"
        root.mkdir()
        data = Path(folder) / "train.beton"
        samples = options.steps * options.batch * workers
        write_betons([(data, DrawnSamples(seed=0, size=options.px, num_samples=samples))], Encoding(), num_workers=2)
        setup = _setup(options, workers, data, root)
        saved: list[CheckpointSaved] = []

        def on_event(event: Event) -> None:
            if isinstance(event, CheckpointSaved):
                saved.append(event)

        began = time.perf_counter()
        _executor(options.mode)(setup, on_event)
        seconds = epoch_seconds(root / "turns.jsonl")
        _report(seconds, saved, total_s=time.perf_counter() - began)


def _setup(options: argparse.Namespace, workers: int, data: Path, root: Path) -> TakingTurnsSetup:
    job = JobConfig.model_validate(
        {
            "name": "step-cost",
            "data": {"train": str(data)},
            "model": {"name": options.model},
            "learning_rate": {"base": 1e-3},
            "phases": [{"epochs": options.epochs, "resolution": options.px, "batch_per_worker": options.batch}],
            "run": {"mode": options.mode, "workers": workers},
        }
    )
    checked, plan, facts = check_job(job, source="step-cost")
    prepared = prepare_run(checked, plan, facts, paths=RunPaths(root), accept_changes=False)
    plain = {field.name: getattr(prepared, field.name) for field in dataclasses.fields(prepared)}
    return TakingTurnsSetup(**plain, save_every_s=options.save_every_s)


def _executor(mode: str):  # type: ignore[no-untyped-def]
    if mode == "ray":
        from launcher.executors.local_ray import run_local_ray

        return run_local_ray
    from launcher.executors.single import run_single

    return run_single


def _report(seconds: list[float], saved: list[CheckpointSaved], *, total_s: float) -> None:
    for name, epochs in (("plain", seconds[2::2]), ("leases and checkpoints", seconds[3::2])):
        print(f"{name:<24} median {statistics.median(epochs):7.2f} s an epoch of {len(epochs)}")
    paired = ratios(seconds)
    print(f"ratio                    median {statistics.median(paired):.4f}, {min(paired):.4f} to {max(paired):.4f}")
    timed = saved[:-1]  # The last one is that of the run's end.
    print(
        f"{len(timed)} checkpoints of {saved[0].num_bytes / 1e6:.0f} MB: training stood still for "
        f"{statistics.median(s.stall_s for s in timed):.3f} s each (first {saved[0].stall_s:.3f} s), "
        f"written in {statistics.median(s.seconds for s in timed):.2f} s beside it; {total_s:.0f} s in all"
    )


if __name__ == "__main__":
    main()

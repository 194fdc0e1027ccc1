"""Seconds from a loss under Ray Train until training goes on, and where they go.

    python -m benchmarks.recovery [--repeats 3]

Workers of a small run on drawn data are killed, one after the other; then, with `workers: {min: 1, max: 2}`, a node
beside this one is joined and killed by turns. On a busy machine the shares hold, the seconds do not: see the load.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.executors.private_ray import joined_node
from tests.faults.ray_runs import RayRunProcess, nodes_run, resolute_run

PARTS = ("noticed", "place to go on found", "controller up", "workers up", "torch, model, data", "first epoch")
Row = dict[str, float]

JOB: dict[str, Any] = {
    "name": "recovery",
    "model": {"name": "small_resnet", "options": {"width": 4, "blocks_per_stage": 1}},
    "learning_rate": {"base": 0.1, "base_batch": 32},
    "phases": [{"epochs": 2_000, "resolution": 12, "global_batch": 32}],
    "evaluation": {"every_epochs": 2_000},
    "checkpoint": {"every_epochs": 5},
    "run": {"mode": "ray", "lease_s": 0.3, "threads_per_worker": 1},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    repeats = arguments.parse_args().repeats
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        data = _draw(Path(folder))
        _print("a worker is killed, 2 workers", _kill_workers(Path(folder), data, repeats))
        lost, regained = _lose_nodes(Path(folder), data, repeats)
    _print("a node is killed, 2 -> 1 workers", lost)
    _print("a node joins, 1 -> 2 workers", regained)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def _kill_workers(folder: Path, data: Path, repeats: int) -> list[Row]:
    job, root = _job(folder / "killed.yaml", data, workers=2), folder / "killed"
    rows = []
    with RayRunProcess(resolute_run(job, root), root, output=folder / "killed.txt") as run:
        for repeat in range(1, repeats + 1):
            _train_a_while(run)
            victim = run.ray_processes("RayTrainWorker")[-1]
            at = _now()
            victim.kill()
            rows.append(_parts(run, at, began=run.await_events("worker_lost", repeat)))
    return rows


def _lose_nodes(folder: Path, data: Path, repeats: int) -> tuple[list[Row], list[Row]]:
    job, root = _job(folder / "nodes.yaml", data, workers={"min": 1, "max": 2}), folder / "nodes"
    lost, regained = [], []
    with RayRunProcess(nodes_run(job, root, cpus=1), root, output=folder / "nodes.txt") as run:
        _train_a_while(run)
        address, secret = json.loads(run.output.splitlines()[0])
        for repeat in range(1, repeats + 1):
            attempts = len(run.events("attempt_started"))
            logs = folder / f"node{repeat}"
            with joined_node(address, secret, host="127.0.0.6", num_cpus=1, num_gpus=0, saved_logs=logs) as node:
                at = _now()
                regained.append(_parts(run, at, began=run.await_events("attempt_started", attempts + 1)))
                _train_a_while(run)
                at = _now()
                node.kill()
                node.wait()
                lost.append(_parts(run, at, began=run.await_events("worker_lost", repeat)))
            _train_a_while(run)
    return lost, regained


def _parts(run: RayRunProcess, at: float, *, began: dict[str, Any]) -> Row:
    """Seconds of each part, from `at` to the first epoch of the attempt that follows."""
    noticed = _time(began)
    started = run.await_event_after("attempt_started", noticed)
    ready = run.await_event_after("workers_ready", _time(started))
    controller = run.ray_processes("TrainController")[-1].create_time()
    workers = max(process.create_time() for process in run.ray_processes("RayTrainWorker"))
    first = run.await_event_after("epoch_trained", _time(ready))
    moments = [at, noticed, _time(started), controller, workers, _time(ready), _time(first)]
    steps = zip(PARTS, moments, moments[1:], strict=False)
    return {**{part: later - earlier for part, earlier, later in steps}, "in all": moments[-1] - at}


def _train_a_while(run: RayRunProcess) -> None:
    run.await_events("epoch_trained", len(run.events("epoch_trained")) + 10)


def _print(what: str, rows: list[Row]) -> None:
    print(f"\n{what}: seconds, median (least-most) of {len(rows)}")
    for part in (*PARTS, "in all"):
        values = [row[part] for row in rows]
        print(f"  {part:<21} {statistics.median(values):6.1f}  ({min(values):.1f}-{max(values):.1f})")


def _job(path: Path, data: Path, *, workers: int | dict[str, int]) -> Path:
    sets = {"train": str(data / "train.beton"), "val": str(data / "val.beton")}
    path.write_text(yaml.safe_dump({**JOB, "data": sets, "run": {**JOB["run"], "workers": workers}}))
    return path


def _draw(folder: Path) -> Path:
    parts = [
        (folder / "train.beton", DrawnSamples(seed=0, size=24, num_samples=250)),
        (folder / "val.beton", DrawnSamples(seed=0, size=24, num_samples=50, validation=True)),
    ]
    write_betons(parts, Encoding(), num_workers=1)
    return folder


def _now() -> float:
    return datetime.now(timezone.utc).timestamp()


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


if __name__ == "__main__":
    main()

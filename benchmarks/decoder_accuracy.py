"""The same job trained on our decoder and on FFCV's: top-1 of each, phase by phase.

    python benchmarks/decoder_accuracy.py TRAIN.beton VAL.beton [--job cifar10-cpu] [--seeds 1,2,3] [--workers 2]

Order, batches and initial weights are the same for both; crops and flips are not, for FFCV draws its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.paths import RunPaths

LOADERS = ("resolute", "ffcv")


def accuracies(job: str, loader: str, overrides: list[str], workers: int, run_dir: Path) -> list[float]:
    """Top-1 at the end of each phase, in percent; the last one is the run's."""
    command = [sys.executable, "-m", "launcher", "run", job, f"data.loader={loader}", *overrides]
    command += ["--workers", str(workers), "--run-dir", str(run_dir)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads(RunPaths(run_dir).summary.read_text())
    return [100 * phase["top1"] for phase in summary["phases"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--job", default="cifar10-cpu")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {loader: [] for loader in LOADERS}
    for seed in chosen.seeds.split(","):
        overrides = [f"data.train={chosen.train}", f"data.val={chosen.val}", f"seed={seed}"]
        for loader in LOADERS:
            with tempfile.TemporaryDirectory() as folder:
                top1 = accuracies(chosen.job, loader, overrides, chosen.workers, Path(folder) / "run")
            found[loader].append(top1[-1])
            print(f"seed {seed}  {loader:<9} {'  '.join(f'{percent:.1f}' for percent in top1)} %", flush=True)
    for loader, top1 in found.items():
        print(f"{loader:<9} mean {statistics.mean(top1):.2f} %, from {min(top1):.2f} to {max(top1):.2f} %")


if __name__ == "__main__":
    main()

"""Peak memory of a loader over an epoch and into the next, each loader in a process of its own.

    python benchmarks/loader_memory.py FILE.beton [--batch 1024] [--size 224] [--batches-ahead 3] [--loaders ...]

Anonymous memory is counted, what the process has for itself; pages of the file in the system's cache are not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from ffcv_datasets.batches import BatchSource
from ffcv_datasets.crop import TrainView

BATCHES = 5


def anonymous_mib() -> float:
    """Of this process, now."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def open_loader(name: str, path: str, batches_ahead: int) -> BatchSource:
    if name == "ffcv":
        from ffcv_datasets.ffcv_loader import FfcvLoader

        return FfcvLoader(path, threads=1, batches_ahead=batches_ahead)
    from ffcv_datasets.loader import Loader

    return Loader(path, threads=1, batches_ahead=batches_ahead)


def peak_mib(name: str, path: str, batch: int, size: int, batches_ahead: int) -> tuple[float, float]:
    """Before anything is decoded, with all imports done; and the peak."""
    loader = open_loader(name, path, batches_ahead)
    before = peak = anonymous_mib()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    samples = [np.arange(i * batch, (i + 1) * batch) % loader.num_samples for i in range(BATCHES)]
    current = loader.batches(samples, TrainView(0, 0, size))
    following = loader.batches(samples[:2], TrainView(0, 1, size), after=current)
    for batches in (current, following):
        for _ in batches:
            pass
    done.set()
    watcher.join()
    return before, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches-ahead", type=int, default=3)
    parser.add_argument("--loaders", default="resolute,ffcv")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.here:
        for name in chosen.loaders.split(","):
            subprocess.run([sys.executable, *sys.argv, "--here", "--loaders", name], check=True)
        return
    before, peak = peak_mib(chosen.loaders, chosen.file, chosen.batch, chosen.size, chosen.batches_ahead)
    print(f"{chosen.loaders:<10} {peak - before:8.0f} MiB for batches, {peak:8.0f} MiB in all")


if __name__ == "__main__":
    main()

"""Seconds from a process's start to its first batch, in parts; and what a change of size costs afterwards.

    python benchmarks/first_batch.py FILE.beton [--batch 256] [--threads 2] [--loaders resolute,ffcv] [--torch]

With --torch, torch is imported first and its seconds are told apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CHANGES = 50


def since_start() -> float:
    """Seconds since the system started this process, to a hundredth."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def measure(name: str, path: str, batch: int, threads: int, *, with_torch: bool) -> None:
    parts = {"python": since_start()}

    def note(part: str) -> None:
        parts[part] = since_start() - sum(parts.values())

    if with_torch:
        import torch  # noqa: F401

        note("torch")
    import numpy as np

    from ffcv_datasets.batches import BatchSource
    from ffcv_datasets.crop import TrainView

    if name == "ffcv":
        from ffcv_datasets.ffcv_loader import FfcvLoader as Chosen
    else:
        from ffcv_datasets.loader import Loader as Chosen  # type: ignore[assignment]
    note("imports")
    loader: BatchSource = Chosen(path, threads=threads)
    note("opening")
    samples = [np.arange(i, i + batch) % loader.num_samples for i in range(6)]
    with loader.batches(samples, TrainView(0, 0, 128)) as batches:
        next(batches)
        note("first batch")
        print(f"{name}: {sum(parts.values()):.2f} s = {', '.join(f'{what} {s:.2f}' for what, s in parts.items())}")
        for _ in batches:
            pass

    threads_before = len(os.listdir("/proc/self/task"))
    firsts: list[float] = []
    others: list[float] = []
    for change in range(CHANGES):
        view, few = TrainView(0, change, 96 + 8 * (change % 8)), samples[: 2 + change % 2]
        began = time.perf_counter()
        with loader.batches(few, view) as batches:
            for step, _ in enumerate(batches):
                (others if step else firsts).append(time.perf_counter() - began)
                began = time.perf_counter()
    threads_after = len(os.listdir("/proc/self/task"))
    print(
        f"{name}: {CHANGES} changes of size: first batch {statistics.median(firsts):.3f} s, "
        f"other batches {statistics.median(others):.3f} s; threads {threads_before} -> {threads_after}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loaders", default="resolute,ffcv")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        measure(chosen.loaders, chosen.file, chosen.batch, chosen.threads, with_torch=chosen.torch)
        return
    for name in chosen.loaders.split(","):
        subprocess.run([sys.executable, *sys.argv, "--here", "--loaders", name], check=True)


if __name__ == "__main__":
    main()

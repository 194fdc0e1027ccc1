"""Measures loaders: CPU seconds with one thread, images per second with two; medians of interleaved runs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from launcher.decode_loaders import LOADERS, DecodeLoader, Files, NotHereError

SIZES = (96, 128, 160, 192, 224, 288)
THREADS = 2


@dataclass(frozen=True)
class Figure:
    size: int
    """Of the crops, in pixels."""
    loader: str
    cpu_s_per_1000: float
    """CPU seconds of the whole process for 1,000 images, decoded by one thread."""
    images_per_s: float
    """By the clock, with two threads."""


def compare(
    files: Files,
    *,
    loaders: Sequence[str],
    sizes: Sequence[int],
    repeats: int,
    on_missing: Callable[[str, str], None],
    on_progress: Callable[[int, int], None],
) -> list[Figure]:
    """Figures by size and loader. What varies on a machine, such as its clock, varies for all alike: they take turns.

    `on_missing` is told a loader's name and why it cannot be had; `on_progress` the sizes done and in all.
    """
    with ExitStack() as stack:
        made: dict[str, tuple[DecodeLoader, DecodeLoader]] = {}
        for name in loaders:
            try:
                made[name] = (_open(name, files, 1, stack), _open(name, files, THREADS, stack))
            except NotHereError as error:
                on_missing(name, str(error))
        figures = []
        for done, size in enumerate(sizes):
            on_progress(done, len(sizes))
            figures += _measure_size(made, size, num_images=len(files.samples), repeats=repeats)
        return figures


def _open(name: str, files: Files, threads: int, stack: ExitStack) -> DecodeLoader:
    loader = LOADERS[name](files, threads)
    stack.callback(loader.close)
    return loader


def _measure_size(
    made: dict[str, tuple[DecodeLoader, DecodeLoader]], size: int, *, num_images: int, repeats: int
) -> list[Figure]:
    for one, several in made.values():  # compiles, starts workers, fills caches
        one.run(size, 0)
        several.run(size, 0)
    cpu_s: dict[str, list[float]] = {name: [] for name in made}
    clock_s: dict[str, list[float]] = {name: [] for name in made}
    for repeat in range(1, repeats + 1):
        for name, (one, several) in made.items():
            cpu_s[name].append(_time(time.process_time, one, size, repeat))
            clock_s[name].append(_time(time.perf_counter, several, size, repeat))
    return [
        Figure(
            size=size,
            loader=name,
            cpu_s_per_1000=1000 * statistics.median(cpu_s[name]) / num_images,
            images_per_s=num_images / statistics.median(clock_s[name]),
        )
        for name in made
    ]


def _time(now: Callable[[], float], loader: DecodeLoader, size: int, epoch: int) -> float:
    gc.collect()
    began = now()
    loader.run(size, epoch)
    return now() - began

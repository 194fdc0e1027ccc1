"""What damage and accidents do: stock FFCV beside our loader, each case in a process of its own with a deadline.

    python benchmarks/faults.py [--loaders ffcv,resolute,resolute-skip] [--faults NAME,NAME] [--deadline 90]

A file of drawn pictures, which has what FFCV writes and nothing else unless a line says so, is damaged and read twice.
`resolute-skip` is ours with skip_corrupt. A picture is right where it is what the file held before it was damaged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fault_files import DAMAGES, NUM_SAMPLES, SIDE, pictures_of, write_sound
from ffcv_datasets.crop import CentreView
from ffcv_datasets.loader import Loader

BATCH = 4
LARGEST_DIFFERENCE = 6.0
"""In mean grey levels: FFCV's faster DCT differs by about one."""
LOADERS = ("ffcv", "resolute", "resolute-skip")
Pixels = NDArray[np.uint8]
Found = Iterator[tuple[NDArray[np.int64], Pixels, int]]
"""For each batch which samples it shows, their images, and how many of them stand in for others."""


@dataclass(frozen=True)
class Outcome:
    right: int = 0
    wrong: int = 0
    replaced: int = 0
    threads_left: int = 0
    error: str = ""
    """Empty: none; the reader went on to the end."""

    def __str__(self) -> str:
        if self.error:
            return f"error: {self.error}"
        told = [f"{self.wrong} wrong, no error"] if self.wrong else []
        told += [f"{self.replaced} replaced and counted"] if self.replaced else []
        told += [f"{self.threads_left} threads left behind"] if self.threads_left else []
        return ", ".join(told) or "all right"


Epoch = Callable[[], Found]
"""Reads a file once."""


@contextmanager
def reader(name: str, path: Path, *, planted_error: bool = False) -> Iterator[Epoch]:
    if name == "ffcv":
        yield _stock(path, planted_error)
        return

    def allocate(num_bytes: int) -> Pixels:
        if planted_error:
            raise RuntimeError("planted")
        return np.empty(num_bytes, np.uint8)

    def epoch() -> Found:
        samples = np.array_split(np.arange(loader.num_samples), loader.num_samples // BATCH)
        with loader.batches(samples, CentreView(SIDE, crop_ratio=1.0)) as batches:
            for batch in batches:
                yield batch.samples, batch.images, len(batch.replaced)

    with Loader(path, skip_corrupt=name == "resolute-skip", allocate=allocate) as loader:
        yield epoch


def _stock(path: Path, planted_error: bool) -> Epoch:
    warnings.simplefilter("ignore")
    from dataclasses import replace

    from ffcv.fields.decoders import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader as StockLoader
    from ffcv.loader import OrderOption
    from ffcv.pipeline.operation import Operation

    class Fails(Operation):  # type: ignore[misc]  # ffcv ships no types
        def generate_code(self) -> Callable[..., Any]:
            def fail(images: Pixels, unused: object) -> Pixels:
                raise RuntimeError("planted")

            return fail

        def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
            return replace(previous_state, jit_mode=False), None

    decoders = [CenterCropRGBImageDecoder((SIDE, SIDE), 1.0), *([Fails()] if planted_error else [])]
    pipelines = {"image": decoders, "label": [IntDecoder()]}
    options = {"order": OrderOption.SEQUENTIAL, "drop_last": False, "pipelines": pipelines}
    loader = StockLoader(str(path), batch_size=BATCH, num_workers=1, **options)

    def epoch() -> Found:
        for number, (images, _) in enumerate(loader):
            yield np.arange(number * BATCH, number * BATCH + len(images)), images, 0

    return epoch


def read_twice(epoch: Epoch, right: Pixels, after_first_batch: Callable[[], None] = lambda: None) -> Outcome:
    """Two epochs, all images held against the `right` ones (N, SIDE, SIDE, 3)."""
    num_right = num_wrong = num_replaced = 0
    for number, (samples, images, replaced) in enumerate(chain(epoch(), epoch())):
        is_wrong = np.abs(images.astype(np.int16) - right[samples]).mean((1, 2, 3)) > LARGEST_DIFFERENCE
        num_wrong += int(is_wrong.sum())
        num_right += int((~is_wrong).sum())
        num_replaced += replaced
        if number == 0:
            after_first_batch()
    return Outcome(right=num_right, wrong=num_wrong, replaced=num_replaced)


def leave_early(epoch: Epoch) -> Outcome:
    for _ in epoch():  # what it keeps for its life it has from here on
        pass
    before = threading.active_count()
    for _ in range(5):
        next(epoch())
    return Outcome(threads_left=threading.active_count() - before)


def in_child(method: str, name: str, path: Path, right: Pixels) -> Outcome:
    """Read in a child: forked, with a reader that has been used before, or spawned, with one of its own."""
    with reader(name, path) as epoch:
        read_twice(epoch, right)
        child: Any = multiprocessing.get_context("spawn").Process(target=_read_anew, args=(name, path, right))
        if method == "fork":
            child = multiprocessing.get_context("fork").Process(target=_read_all, args=(epoch, right))
        child.start()
        child.join()
    return Outcome(error=f"the child ended with {child.exitcode}" if child.exitcode else "")


def _read_anew(name: str, path: Path, right: Pixels) -> None:
    with reader(name, path) as epoch:
        _read_all(epoch, right)


def _read_all(epoch: Epoch, right: Pixels) -> None:
    assert read_twice(epoch, right).right == 2 * NUM_SAMPLES


def outcome(name: str, fault: str, folder: Path) -> Outcome:
    """What happens to the reader of that name. Writes into the folder."""
    path = folder / "damaged.beton"
    right = pictures_of(write_sound(path))
    damage = DAMAGES.get(fault)
    try:
        if fault.startswith("read after "):
            return in_child(fault.removeprefix("read after "), name, path, right)
        if damage and not damage.while_read:
            damage.apply(path)
        with reader(name, path, planted_error=fault == "error in the thread") as epoch:
            if fault == "epoch left early, 5 times":
                return leave_early(epoch)
            return read_twice(epoch, right, lambda: damage.apply(path) if damage and damage.while_read else None)
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {str(error).replace(str(path), path.name)}")


FAULTS = (*DAMAGES, "error in the thread", "epoch left early, 5 times", "read after fork", "read after spawn")


def tell(name: str, fault: str, deadline_s: float) -> str:
    """The outcome in a process of its own, which may hang or be killed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.faults", "--here", folder, "--loaders", name, "--faults", fault]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            planted = _last_line(err)
            return f"hangs (on stderr: {planted})" if planted else "hangs"
    if process.returncode < 0:
        return f"killed by {signal.Signals(-process.returncode).name}"
    return str(Outcome(**json.loads(out.splitlines()[-1]))) if out else f"error: {_last_line(err)}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loaders", default=",".join(LOADERS))
    parser.add_argument("--faults", default=";".join(FAULTS), help="separated by semicolons")
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds; FFCV takes about twenty to compile")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for fault in chosen.faults.split(";"):
        for name in chosen.loaders.split(","):
            if chosen.here:
                print(json.dumps(outcome(name, fault, chosen.here).__dict__))
            else:
                print(f"{fault:<34} {name:<14} {tell(name, fault, chosen.deadline)}", flush=True)


if __name__ == "__main__":
    main()

"""The loaders that `resolute bench decode` compares: each decodes the same photographs into random crops."""

from __future__ import annotations

import ctypes
import io
import math
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.batches import BatchSource
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader

BATCH = 64
CROP_SCALE, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class NotHereError(Exception):
    """A loader that this machine or installation has not; the sentence says what is missing."""


@dataclass(frozen=True)
class Files:
    """The photographs, as written for the comparison."""

    plain: Path
    levels: Path | None
    """With a smaller level and restart markers; None where none could be written."""
    samples: NDArray[np.int64]
    """One run's, in order: the file's, several times where it is short."""

    def batches(self) -> list[NDArray[np.int64]]:
        return [self.samples[first : first + BATCH] for first in range(0, len(self.samples), BATCH)]

    def stored(self) -> list[bytes]:
        """The JPEG files of `plain`."""
        with Beton(self.plain) as beton:
            return [beton.image_bytes(sample) for sample in range(beton.num_samples)]


class DecodeLoader(Protocol):
    def run(self, size: int, epoch: int) -> None:
        """Decode all samples once into crops of size x size pixels."""

    def close(self) -> None: ...


class _Batches:
    """A loader with our face: ours, or FFCV's."""

    def __init__(self, loader: BatchSource, files: Files) -> None:
        self._loader = loader
        self._samples = files.batches()

    def run(self, size: int, epoch: int) -> None:
        view = TrainView(0, epoch, size, CROP_SCALE, CROP_RATIO)
        with self._loader.batches(self._samples, view) as batches:
            for _ in batches:
                pass

    def close(self) -> None:
        self._loader.close()


def _resolute(files: Files, threads: int) -> DecodeLoader:
    return _Batches(Loader(files.plain, threads=threads), files)


def _resolute_levels(files: Files, threads: int) -> DecodeLoader:
    if files.levels is None:
        raise NotHereError("no file with levels and restart markers could be written")
    return _Batches(Loader(files.levels, threads=threads), files)


def _ffcv(files: Files, threads: int) -> DecodeLoader:
    warnings.filterwarnings("ignore", module=r"ffcv|numba")
    from ffcv_datasets.ffcv_loader import FfcvLoader

    return _Batches(FfcvLoader(files.plain, threads=threads), files)


class _Photographs:
    """A torch Dataset of JPEG files in memory; picklable, as its workers may be spawned."""

    def __init__(self, stored: list[bytes], samples: NDArray[np.int64], size: int) -> None:
        from torchvision.transforms import v2

        self._stored, self._samples = stored, samples
        crop = v2.RandomResizedCrop(size, CROP_SCALE, CROP_RATIO)
        self._transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        with Image.open(io.BytesIO(self._stored[self._samples[index]])) as image:
            return self._transform(image.convert("RGB"))


class _Torchvision:
    """DataLoader, PIL and torchvision. One thread is this one; more are that many worker processes."""

    def __init__(self, files: Files, threads: int) -> None:
        self._stored, self._samples = files.stored(), files.samples
        self._workers = threads if threads > 1 else 0
        self._made: dict[int, Any] = {}

    def run(self, size: int, epoch: int) -> None:
        import torch
        from torch.utils.data import DataLoader

        torch.set_num_threads(1)  # FFCV sets it to its own, and torch's threads spin where they have nothing to do
        if size not in self._made:
            self._made.clear()
            self._made[size] = DataLoader(
                _Photographs(self._stored, self._samples, size),  # type: ignore[arg-type]  # needs no base class
                batch_size=BATCH,
                num_workers=self._workers,
                persistent_workers=self._workers > 0,
                multiprocessing_context="spawn" if self._workers else None,  # FFCV's threads do not survive a fork
            )
        for _ in self._made[size]:
            pass

    def close(self) -> None:
        self._made.clear()


class _Dali:
    """NVIDIA DALI on the CPU: image_random_crop and an antialiased resize, bytes handed over from Python."""

    def __init__(self, files: Files, threads: int) -> None:
        try:
            import nvidia.dali
        except ImportError:
            raise NotHereError("DALI is not installed: pip install nvidia-dali-cuda120") from None
        self._dali = nvidia.dali
        stored = [np.frombuffer(data, np.uint8) for data in files.stored()]
        self._batches = [[stored[sample] for sample in batch] for batch in files.batches()]
        self._threads = threads
        self._pipes: dict[int, Any] = {}

    def run(self, size: int, epoch: int) -> None:
        if size not in self._pipes:
            self._pipes.clear()
            self._pipes[size] = self._pipe(size)
        for batch in self._batches:
            self._pipes[size].feed_input("jpeg", batch)
            self._pipes[size].run()

    def _pipe(self, size: int) -> Any:
        import nvidia.dali.fn as fn

        pipe = self._dali.Pipeline(
            BATCH, self._threads, device_id=None, prefetch_queue_depth=1, exec_pipelined=False, exec_async=False
        )
        with pipe:
            jpeg = fn.external_source(name="jpeg", no_copy=True)
            ratios, scales = list(CROP_RATIO), list(CROP_SCALE)
            images = fn.decoders.image_random_crop(
                jpeg, device="cpu", random_aspect_ratio=ratios, random_area=scales, num_attempts=10
            )
            images = fn.resize(images, size=[size, size], antialias=True)
            pipe.set_outputs(fn.flip(images, horizontal=fn.random.coin_flip()))
        pipe.build()
        return pipe

    def close(self) -> None:
        self._pipes.clear()


_ENTROPY_SOURCE = r"""
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <jpeglib.h>

struct error { struct jpeg_error_mgr base; jmp_buf escape; };

static void leave(j_common_ptr jpeg) { longjmp(((struct error *)jpeg->err)->escape, 1); }

int read_coefficients(const unsigned char *bytes, size_t size)
{
    struct jpeg_decompress_struct jpeg;
    struct error error;
    jpeg.err = jpeg_std_error(&error.base);
    error.base.error_exit = leave;
    jpeg_create_decompress(&jpeg);
    int failed = setjmp(error.escape);
    if (!failed) {
        jpeg_mem_src(&jpeg, (unsigned char *)bytes, size);
        jpeg_read_header(&jpeg, TRUE);
        jpeg_read_coefficients(&jpeg);
    }
    jpeg_destroy_decompress(&jpeg);
    return failed;
}
"""


class _Entropy:
    """Entropy decoding of whole files and nothing else: what the JPEG format asks of everybody. It knows no size."""

    def __init__(self, files: Files, threads: int) -> None:
        self._read = _compile_entropy(files.plain.parent)
        self._stored, self._samples = files.stored(), files.samples
        self._threads = ThreadPoolExecutor(threads)

    def run(self, size: int, epoch: int) -> None:
        def read(sample: int) -> None:
            data = self._stored[sample]
            assert self._read(data, len(data)) == 0, sample

        list(self._threads.map(read, self._samples))

    def close(self) -> None:
        self._threads.shutdown()


def _compile_entropy(folder: Path) -> Callable[[bytes, int], int]:
    """The function of the C source above, which no Python library has."""
    compiler = shutil.which("cc")
    source, library = folder / "entropy.c", folder / "entropy.so"
    if compiler is None:
        raise NotHereError("entropy decoding alone needs a C compiler: cc")
    if not library.exists():
        source.write_text(_ENTROPY_SOURCE)
        command = [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ljpeg"]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise NotHereError(f"entropy decoding alone cannot be compiled: {built.stderr.splitlines()[0]}")
    function = ctypes.CDLL(str(library)).read_coefficients
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    read: Callable[[bytes, int], int] = function
    return read


LOADERS: dict[str, Callable[[Files, int], DecodeLoader]] = {
    "ffcv": _ffcv,
    "resolute": _resolute,
    "resolute-levels": _resolute_levels,
    "torchvision": _Torchvision,
    "dali": _Dali,
    "entropy": _Entropy,
}
"""(files, threads) -> loader. Each raises NotHereError where it cannot be had."""


def write_files(images: Path | None, folder: Path, *, least_samples: int) -> Files:
    """Write `images`, or drawn pictures if None, at most 500 px long at quality 90; plain, and with levels."""
    tree = folder / "tree"
    tree.mkdir()
    if images is None:
        _draw(tree / "drawn")
    else:
        (tree / "images").symlink_to(images.absolute(), target_is_directory=True)
    plain, levels = folder / "plain.beton", folder / "levels.beton"
    _write(tree, plain)
    has_levels = _write(tree, levels, "--levels", "500,256", "--restart", optional=True)
    with Beton(plain) as beton:
        num_samples = beton.num_samples
    repeats = math.ceil(least_samples / num_samples)
    samples = np.concatenate([random.Random(i).sample(range(num_samples), num_samples) for i in range(repeats)])
    return Files(plain, levels if has_levels else None, samples.astype(np.int64))


def _draw(folder: Path) -> None:
    from PIL import Image

    from ffcv_datasets.synthetic import draw_image

    folder.mkdir()
    for index in range(64):
        pixels, _ = draw_image(0, index, 500)
        Image.fromarray(pixels[: 376 if index % 2 else 500, : 500 if index % 2 else 376]).save(folder / f"{index}.png")


def _write(tree: Path, out: Path, *options: str, optional: bool = False) -> bool:
    """`resolute data write`, as a user calls it."""
    command = [sys.executable, "-m", "launcher", "data", "write", str(tree), str(out), "--skip-bad"]
    command += ["--max-side", "500", "--no-keep-jpeg", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and not optional:
        raise NotHereError(done.stderr.strip())
    return done.returncode == 0

"""Writes data sets: samples -> DATA.beton and its card.

Threads read and encode the pictures in chunks; the caller's thread writes them in sample order, so that the
file does not depend on how many threads there are. Nothing has its final name before all of it is on disk.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_writer import PAGE_BYTES, BetonWriter, fits
from ffcv_datasets.card import Card, card_path, file_sha256, write_card
from ffcv_datasets.picture import Encoding, PictureError, StoredPicture
from ffcv_datasets.tally import Tally, channel_statistics, extent

_CHUNK = 16
_CHUNKS_AHEAD_PER_THREAD = 3

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number there are."""


class WriteError(ValueError):
    """A data set that cannot be written as asked."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be stored, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class BadImagesError(WriteError):
    """Some images cannot be stored; `images` holds every one of them."""

    def __init__(self, images: Sequence[BadImage]) -> None:
        super().__init__(tuple(images))
        self.images = tuple(images)

    def __str__(self) -> str:
        count = "1 image" if len(self.images) == 1 else f"{len(self.images):,} images"
        return f"{count} cannot be stored; repair or remove them, or leave them out with --skip-bad"


class Samples(Protocol):
    """What a data set is written from."""

    @property
    def source(self) -> str:
        """Where the samples come from, for the card."""

    @property
    def recipe(self) -> dict[str, int] | None:
        """The numbers that drawn samples follow from, for the card."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(num_samples,)"""

    def name(self, index: int) -> str:
        """What a person knows the sample by."""

    def store(self, index: int, encoding: Encoding, *, as_jpeg: bool) -> StoredPicture:
        """Called from several threads. Raises PictureError."""


@dataclass(frozen=True)
class Written:
    path: Path
    card: Card
    skipped: tuple[BadImage, ...]


def split_path(out: Path, split: str) -> Path:
    """DATA.beton and "train" -> DATA.train.beton; without a split DATA.beton. Raises WriteError for another ending."""
    if out.suffix != ".beton":
        raise WriteError(f"{out}: the name of the file to write must end in .beton")
    return out.with_suffix(f".{split}.beton") if split else out


def write_betons(
    parts: Sequence[tuple[Path, Samples]],
    encoding: Encoding,
    *,
    num_threads: int,
    skip_bad: bool = False,
    force: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> list[Written]:
    """Write each part's samples to its path, with a card beside it: all parts or, if anything fails, none.

    Raises BadImagesError with every image that cannot be stored (unless `skip_bad`), WriteError for paths
    that are taken (unless `force`) or files that would be empty, OSError where the disk refuses.
    """
    for path, _ in parts:
        _check_target(path, force=force)
    total = sum(len(samples.labels) for _, samples in parts)
    done = 0
    with ExitStack() as cleanup, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata would be told into the progress bar
        staged = [_Staged(path, samples, encoding) for path, samples in parts]
        for part in staged:
            cleanup.callback(part.temporary.unlink, missing_ok=True)
            for _ in part.fill(num_threads, skip_bad):
                done += 1
                on_progress(done, total)
        bad = [image for part in staged for image in part.bad]
        if bad and not skip_bad:
            raise BadImagesError(bad)
        written = [Written(part.target, part.card(), tuple(part.bad)) for part in staged]
        for part, result in zip(staged, written, strict=True):
            _publish(part.temporary, result)
    return written


def _check_target(path: Path, *, force: bool) -> None:
    if not path.parent.is_dir():
        raise WriteError(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise WriteError(f"{path}: is a folder; name a file")
    if path.exists() and not force:
        raise WriteError(f"{path}: exists already; choose another name, or replace it with --force")


class _Staged:
    """A data file on its way, under a temporary name in its final folder."""

    def __init__(self, target: Path, samples: Samples, encoding: Encoding) -> None:
        self.target = target
        self.temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
        self.bad: list[BadImage] = []
        self._samples, self._encoding, self._tally = samples, encoding, Tally()

    def fill(self, num_threads: int, skip_bad: bool) -> Iterator[None]:
        """Write all samples, yielding after each. Unless `skip_bad`, those after a bad one are just checked."""
        labels = self._samples.labels.tolist()
        pictures = _encoded(self._samples, self._encoding, num_threads)
        with self.temporary.open("xb") as file, closing(pictures):
            writer = BetonWriter(file, capacity=len(labels))
            for index, picture in enumerate(pictures):
                if isinstance(picture, PictureError):
                    self.bad.append(BadImage(self._samples.name(index), str(picture)))
                elif skip_bad or not self.bad:
                    writer.add(picture, labels[index])
                    self._tally.count(picture, labels[index])
                yield
            writer.finish()
            file.flush()
            os.fsync(file.fileno())

    def card(self) -> Card:
        samples, encoding, tally = self._samples, self._encoding, self._tally
        if not tally.labels:
            raise WriteError(f"{self.target}: not one image of {samples.source} could be stored")
        mean, std = channel_statistics(tally.histogram)
        return Card(
            source=samples.source,
            recipe=samples.recipe,
            num_samples=len(tally.labels),
            num_skipped=len(self.bad),
            classes=samples.classes,
            samples_per_class=tally.per_class(len(samples.classes)),
            num_bytes=self.temporary.stat().st_size,
            sha256=file_sha256(self.temporary),
            width=extent(tally.widths),
            height=extent(tally.heights),
            channel_mean=mean,
            channel_std=std,
            max_side=encoding.max_side,
            jpeg_quality=encoding.jpeg_quality,
            share_jpeg=encoding.share_jpeg,
            num_jpeg=tally.num_jpeg,
            num_kept=tally.num_kept,
        )


def _encoded(samples: Samples, encoding: Encoding, num_threads: int) -> Generator[StoredPicture | PictureError]:
    """The pictures in sample order, with a PictureError in the place of each that cannot be stored."""
    num_samples = len(samples.labels)

    def encode_chunk(start: int) -> list[StoredPicture | PictureError]:
        return [_encode(samples, index, encoding) for index in range(start, min(start + _CHUNK, num_samples))]

    chunks: deque[Future[list[StoredPicture | PictureError]]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="encode")
    try:
        for start in range(0, num_samples, _CHUNK):
            chunks.append(pool.submit(encode_chunk, start))
            if len(chunks) > _CHUNKS_AHEAD_PER_THREAD * num_threads:
                yield from chunks.popleft().result()
        while chunks:
            yield from chunks.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(samples: Samples, index: int, encoding: Encoding) -> StoredPicture | PictureError:
    try:
        picture = samples.store(index, encoding, as_jpeg=encoding.is_jpeg(index))
    except PictureError as error:
        return error
    if not fits(picture):
        size = f"{picture.width} x {picture.height} px take {len(picture.data):,} bytes"
        return PictureError(f"{size}, a page holds {PAGE_BYTES:,}; give a smaller --max-side or a higher --share-jpeg")
    return picture


def _publish(temporary: Path, written: Written) -> None:
    card_path(written.path).unlink(missing_ok=True)  # for a moment rather no card than one of another file
    temporary.replace(written.path)
    write_card(written.card, written.path)
    folder = os.open(written.path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

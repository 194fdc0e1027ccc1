"""Writes data sets: samples -> DATA.beton and its card.

Threads read and encode the pictures in chunks; the caller's thread writes them in sample order, so that the
file does not depend on how many threads there are. Nothing has its final name before all of it is on disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_writer import PAGE_BYTES, BetonWriter, fits
from ffcv_datasets.card import Card
from ffcv_datasets.in_order import in_order
from ffcv_datasets.picture import Encoding, PictureError, StoredPicture
from ffcv_datasets.staging import WriteError, check_target, durable_file, publish, temporary_path
from ffcv_datasets.tally import Tally

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number there are."""


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
        check_target(path, force=force)
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
            publish(part.temporary, result.path, result.card)
    return written


class _Staged:
    """A data file on its way, under a temporary name in its final folder."""

    def __init__(self, target: Path, samples: Samples, encoding: Encoding) -> None:
        self.target = target
        self.temporary = temporary_path(target)
        self.bad: list[BadImage] = []
        self._samples, self._encoding, self._tally = samples, encoding, Tally()

    def fill(self, num_threads: int, skip_bad: bool) -> Iterator[None]:
        """Write all samples, yielding after each. Unless `skip_bad`, those after a bad one are just checked."""
        labels = self._samples.labels.tolist()
        encode = partial(_encode, self._samples, encoding=self._encoding)
        with closing(in_order(encode, len(labels), num_threads)) as pictures, durable_file(self.temporary) as file:
            writer = BetonWriter(file, capacity=len(labels), sides=self._encoding.further_sides)
            for index, picture in enumerate(pictures):
                if isinstance(picture, PictureError):
                    self.bad.append(BadImage(self._samples.name(index), str(picture)))
                elif skip_bad or not self.bad:
                    writer.add(picture, labels[index])
                    self._tally.count(picture, labels[index])
                yield
            writer.finish()

    def card(self) -> Card:
        samples = self._samples
        if not self._tally.labels:
            raise WriteError(f"{self.target}: not one image of {samples.source} could be stored")
        return self._tally.card(
            self.temporary,
            self._encoding,
            source=samples.source,
            recipe=samples.recipe,
            classes=samples.classes,
            num_skipped=len(self.bad),
        )


def _encode(samples: Samples, index: int, encoding: Encoding) -> StoredPicture | PictureError:
    try:
        picture = samples.store(index, encoding, as_jpeg=encoding.is_jpeg(index))
    except PictureError as error:
        return error
    if not fits(picture):
        size = f"{picture.width} x {picture.height} px take {len(picture.data):,} bytes"
        return PictureError(f"{size}, a page holds {PAGE_BYTES:,}; give a smaller --max-side or a higher --share-jpeg")
    return picture

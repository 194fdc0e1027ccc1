"""What worker processes make of items: stored samples, or the reasons why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from ffcv_datasets.beton_writer import PAGE_BYTES, fits
from ffcv_datasets.levels import checksum
from ffcv_datasets.picture import Encoding, PictureError, StoredPicture
from ffcv_datasets.samples import BadImage, Item, Samples, StoredSample


@dataclass(frozen=True)
class Task:
    item: Item | BadImage
    as_jpeg: bool


@dataclass(frozen=True)
class Made:
    identity: int
    """Another number, almost surely, if the sample was another one before."""
    sample: StoredSample | BadImage


def task(samples: Samples, index: int, encoding: Encoding) -> Task:
    """What there is to do for a sample."""
    try:
        return Task(samples.item(index), encoding.is_jpeg(index))
    except PictureError as error:
        return Task(BadImage(f"sample {index}", str(error)), as_jpeg=True)


def identify(task: Task) -> int:
    text = str(task.item) if isinstance(task.item, BadImage) else task.item.identity()
    return checksum(text.encode("utf-8", "surrogateescape"))


def make(task: Task, encoding: Encoding) -> Made:
    """Read and encode a sample."""
    identity = identify(task)  # before it is read, so that a change while it is being read shows later
    return Made(identity, task.item if isinstance(task.item, BadImage) else _stored(task.item, task.as_jpeg, encoding))


def _stored(item: Item, as_jpeg: bool, encoding: Encoding) -> StoredSample | BadImage:
    try:
        sample = item.store(encoding, as_jpeg=as_jpeg)
    except PictureError as error:
        return BadImage(item.name, str(error))
    for field, value in sample.values.items():
        if not fits(value):
            return BadImage(item.name, _too_large(field, value))
    return sample


def _too_large(field: str, value: object) -> str:
    if isinstance(value, StoredPicture):
        what = f"{value.width} x {value.height} px take {len(value.data):,} bytes"
    else:
        assert isinstance(value, bytes)
        what = f"{field!r} takes {len(value):,} bytes"
    return f"{what}, a page holds {PAGE_BYTES:,}; give a smaller --max-side or a higher --share-jpeg"

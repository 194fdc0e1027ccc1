"""Samples before they are read: pictures in files, in parts of files or in memory, with a label, a mask, boxes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton_writer import Value
from ffcv_datasets.levels import checksum
from ffcv_datasets.picture import (
    Encoding,
    PictureError,
    StoredPicture,
    store_file,
    store_rgb,
    upright_rgb,
    upright_size,
)
from ffcv_datasets.samples import StoredSample
from ffcv_datasets.targets import BOXES, MASK, Size, clip_boxes, decode_mask, encode_mask, fit_boxes, fit_mask


@dataclass(frozen=True)
class FilePart:
    """A file, or a stretch of one."""

    path: str
    offset: int = 0
    size: int = -1
    """In bytes; -1: up to the file's end."""

    def read(self) -> bytes:
        """Raises PictureError."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise PictureError(f"cannot be read ({error.strerror})") from error

    def stamp(self) -> str:
        """Another text when the file was changed."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            return f"{self} {error.strerror}"
        return f"{self} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True, kw_only=True)
class BoxTargets:
    """What there is to see in a picture, and where."""

    boxes: NDArray[np.float32]
    """(n, 5): left, top, right, bottom in pixels of the picture, and the category's number."""
    size: Size | None
    """Of the picture, as far as it is known to who tells of the boxes."""
    num_rows: int
    """Rows to store, those of padding included."""
    num_categories: int


@dataclass(frozen=True, kw_only=True)
class PictureItem:
    """A picture: an image file, its bytes, or what was decoded from them."""

    name: str
    picture: FilePart | bytes | Image.Image
    label: int | None = None
    mask: FilePart | bytes | None = None
    targets: BoxTargets | None = None

    def identity(self) -> str:
        boxes = self.targets.boxes.tobytes() if self.targets else b""
        return f"{_identity(self.picture)} {self.label} {_identity(self.mask)} {checksum(boxes)}"

    def store(self, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        if isinstance(self.picture, Image.Image):
            picture = store_rgb(upright_rgb(self.picture), encoding, as_jpeg=as_jpeg)
            return self._sample(picture, upright_size(self.picture))
        data = _content(self.picture)
        picture = store_file(data, encoding, as_jpeg=as_jpeg)
        return self._sample(picture, upright_size(Image.open(io.BytesIO(data))))

    def _sample(self, picture: StoredPicture, upright: Size) -> StoredSample:
        stored = (picture.width, picture.height)
        values: dict[str, Value] = {"image": picture}
        counts: dict[str, NDArray[np.int64]] = {}
        if self.label is not None:
            values["label"] = self.label
        if self.mask:
            mask = fit_mask(decode_mask(_content(self.mask)), upright, stored)
            values[MASK], counts[MASK] = encode_mask(mask), np.bincount(mask.ravel())
        if self.targets:
            if self.targets.size not in (None, upright):
                told = "its boxes are of {} x {} px, it has {} x {} px".format(*self.targets.size, *upright)
                raise PictureError(told)
            boxes = clip_boxes(self.targets.boxes, upright)
            values[BOXES] = fit_boxes(boxes, upright, stored, num_rows=self.targets.num_rows).tobytes()
            counts[BOXES] = np.bincount(boxes[:, 4].astype(np.intp), minlength=self.targets.num_categories)
        return StoredSample(values=values, counts=counts)


def _content(source: FilePart | bytes) -> bytes:
    return source if isinstance(source, bytes) else source.read()


def _identity(source: FilePart | bytes | Image.Image | None) -> str:
    if isinstance(source, FilePart):
        return source.stamp()
    if isinstance(source, Image.Image):
        return f"{source.mode} {source.size} {checksum(source.tobytes())}"
    return f"{len(source)} {checksum(source)}" if source is not None else ""

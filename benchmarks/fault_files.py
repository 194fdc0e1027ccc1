"""A .beton file of drawn pictures, and what may happen to it: for faults.py and the tests of what ours makes of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.beton_format import ALLOCATION, HEADER, METADATA
from ffcv_datasets.beton_writer import BetonWriter
from ffcv_datasets.picture import Encoding, store_rgb
from ffcv_datasets.synthetic import draw_image

NUM_SAMPLES, SIDE = 64, 64
HURT = (21, 22, 40)
"""The samples that a fault of single samples befalls."""


@dataclass(frozen=True)
class Damage:
    apply: Callable[[Path], None]
    """To the file at that path."""
    while_read: bool = False
    """After its reader has had a batch; otherwise before it is opened."""


@dataclass
class Content:
    """A file's bytes, with views of its tables through which they can be changed."""

    data: bytearray

    def __post_init__(self) -> None:
        header = np.frombuffer(self.data, HEADER, 1)[0]
        row = np.dtype([("image", METADATA["image"]), ("label", METADATA["int"])], align=True)
        metadata_at = HEADER.itemsize + int(header["num_fields"]) * DESCRIPTOR_BYTES
        self.metadata: NDArray[Any] = np.frombuffer(self.data, row, NUM_SAMPLES, metadata_at)
        self.allocations: NDArray[Any] = np.frombuffer(self.data, ALLOCATION, -1, int(header["allocations_at"]))

    def stored(self, sample: int) -> slice:
        """Where the sample's JPEG file lies."""
        [row] = self.allocations[self.allocations["sample"] == sample]
        return slice(int(row["offset"]), int(row["offset"] + row["size"]))


DESCRIPTOR_BYTES = 1 + 16 + 1024


def write_sound(path: Path, *, seed: int = 0, checksums: bool = False) -> Path:
    """Write NUM_SAMPLES pictures of SIDE x SIDE pixels, as FFCV does; with `checksums` as we do."""
    with path.open("wb") as file:
        writer = BetonWriter(file, capacity=NUM_SAMPLES)
        for sample in range(NUM_SAMPLES):
            picture = Image.fromarray(draw_image(seed, sample, SIDE)[0])
            writer.add({"image": store_rgb(picture, Encoding(), as_jpeg=True), "label": sample})
        writer.finish()
    return path if checksums else _without_additions(path)


def _without_additions(path: Path) -> Path:
    """Take out what stands before the allocation table, where FFCV never looks."""
    data = bytearray(path.read_bytes())
    header = np.frombuffer(data, HEADER, 1)
    with Beton(path) as beton:
        assert beton.footer
        added_at, allocations_at = beton.footer.levels_at, int(header["allocations_at"][0])
    header["allocations_at"] = added_at
    path.write_bytes(data[:added_at] + data[allocations_at:])
    return path


def pictures_of(path: Path) -> NDArray[np.uint8]:
    """(N, SIDE, SIDE, 3): what the sound file holds."""
    with Beton(path) as beton:
        return np.stack([np.asarray(Image.open(io.BytesIO(beton.image_bytes(i)))) for i in range(NUM_SAMPLES)])


def edited(edit: Callable[[Content], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = Content(bytearray(path.read_bytes()))
        edit(content)
        path.write_bytes(content.data)

    return apply


def overwrite(content: Content) -> None:
    for sample in HURT:
        place = content.stored(sample)
        middle = (place.start + place.stop) // 2
        content.data[middle : middle + 99] = bytes(99)


def shorten(content: Content) -> None:
    hurt = np.isin(content.allocations["sample"], HURT)
    content.allocations["size"][hurt] //= 2


def empty(content: Content) -> None:
    content.allocations["size"][np.isin(content.allocations["sample"], HURT)] = 0


def enlarge(content: Content) -> None:
    """Sides of which FFCV would have to reserve 12 GiB for each image."""
    content.metadata["image"]["height"][list(HURT)] = content.metadata["image"]["width"][list(HURT)] = 65535


def contradict(content: Content) -> None:
    content.metadata["image"]["width"][list(HURT)] -= 8


def flip_bit(content: Content) -> None:
    """In the last quarter of a JPEG's entropy-coded data."""
    for sample in HURT:
        place = content.stored(sample)
        content.data[place.stop - (place.stop - place.start) // 4] ^= 4


def flip_bit_of_table(content: Content) -> None:
    """Where a sample's image lies: where that of another one does."""
    content.metadata["image"]["offset"][HURT[0]] = content.metadata["image"]["offset"][HURT[1]]


def with_checksums(edit: Callable[[Content], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        edited(edit)(write_sound(path, checksums=True))

    return apply


def cut(path: Path, bytes_left: int) -> None:
    os.truncate(path, bytes_left)


def overwrite_in_place(path: Path) -> None:
    other = write_sound(path.with_name("other.beton"), seed=1)
    with path.open("r+b") as file:
        file.write(other.read_bytes())


def replace_by_another(path: Path) -> None:
    os.replace(write_sound(path.with_name("other.beton"), seed=1), path)


DAMAGES = {
    "JPEG overwritten in its middle": Damage(edited(overwrite)),
    "sample cut in half": Damage(edited(shorten)),
    "empty sample": Damage(edited(empty)),
    "sides of 65,535 pixels": Damage(edited(enlarge)),
    "sides not those of the JPEG": Damage(edited(contradict)),
    "bit flipped in a JPEG": Damage(edited(flip_bit)),
    "bit flipped in the tables": Damage(edited(flip_bit_of_table)),
    "file short of 3 table rows": Damage(lambda path: cut(path, path.stat().st_size - 3 * ALLOCATION.itemsize)),
    "file cut in half": Damage(lambda path: cut(path, path.stat().st_size // 2)),
    "file cut while read": Damage(lambda path: cut(path, 100_000), while_read=True),
    "file overwritten while read": Damage(overwrite_in_place, while_read=True),
    "file replaced while read": Damage(replace_by_another, while_read=True),
    "checksums, JPEG overwritten": Damage(with_checksums(overwrite)),
    "checksums, bit flipped in a JPEG": Damage(with_checksums(flip_bit)),
    "checksums, bit flipped in tables": Damage(with_checksums(flip_bit_of_table)),
}

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from ffcv_datasets.beton import Beton
from ffcv_datasets.beton_format import JPEG, RAW
from ffcv_datasets.beton_writer import PAGE_BYTES, BetonWriter, fits
from ffcv_datasets.picture import StoredPicture


def a_picture(data: bytes, *, is_jpeg: bool = True, width: int = 1, height: int = 1) -> StoredPicture:
    histogram = np.zeros((3, 256), np.int64)
    return StoredPicture(data=data, is_jpeg=is_jpeg, is_kept=False, width=width, height=height, histogram=histogram)


def write(path: Path, pictures: list[StoredPicture], *, spare: int = 0) -> Path:
    with path.open("wb") as file:
        writer = BetonWriter(file, capacity=len(pictures) + spare)
        for label, picture in enumerate(pictures):
            writer.add({"image": picture, "label": label})
        writer.finish()
    return path


@pytest.mark.parametrize("spare", [0, 1, PAGE_BYTES // 24])
def test_what_was_added_is_read_back(tmp_path: Path, spare: int) -> None:
    pictures = [
        a_picture(b"a jpeg", width=500, height=65_500),
        a_picture(bytes(range(18)), is_jpeg=False, width=3, height=2),
        a_picture(b"another"),
    ]
    with Beton(write(tmp_path / "x.beton", pictures, spare=spare)) as beton:
        assert beton.fields == {"image": "image", "label": "int"}
        assert beton.labels().tolist() == [0, 1, 2]
        assert beton.widths().tolist() == [500, 3, 1]
        assert beton.heights().tolist() == [65_500, 2, 1]
        assert beton.images().mode.tolist() == [JPEG, RAW, JPEG]
        assert [beton.image_bytes(sample) for sample in range(3)] == [picture.data for picture in pictures]


def test_no_picture_crosses_a_page(tmp_path: Path) -> None:
    sizes = [PAGE_BYTES - 1, 1, 1, PAGE_BYTES, PAGE_BYTES // 2 + 1, PAGE_BYTES // 2]
    pictures = [a_picture(bytes([number]) * size) for number, size in enumerate(sizes)]
    with Beton(write(tmp_path / "x.beton", pictures)) as beton:
        images = beton.images()
        assert images.sizes.tolist() == sizes
        first, last = images.offsets, images.offsets + images.sizes - 1
        assert (first // PAGE_BYTES == last // PAGE_BYTES).all()
        assert (first // PAGE_BYTES).tolist() == [1, 1, 2, 3, 4, 5]
        assert all(beton.image_bytes(sample) == picture.data for sample, picture in enumerate(pictures))


def test_a_page_is_the_limit() -> None:
    assert fits(a_picture(bytes(PAGE_BYTES)))
    assert not fits(a_picture(bytes(PAGE_BYTES + 1)))


def test_the_tables_are_whole_only_when_finished() -> None:
    file = io.BytesIO()
    writer = BetonWriter(file, capacity=1)
    writer.add({"image": a_picture(b"x"), "label": 0})
    assert not any(file.getvalue()[:24])

"""Our pixels against a full decode that is resampled in double precision: benchmarks/quality.py, within bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quality import compare, full_decode, summarise
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import Boxes
from tests.integration.ffcv_datasets.pictures import draw, jpeg, write_pictures

SIZE = 64
BOUNDS_DB = {"8/8": 57.0, "enlarged": 57.0, "4/8": 33.0, "2/8": 30.0, "1/8": 26.0}
"""At 57 dB nothing is left but the rounding to whole levels."""
BOX_SIDES = {"8/8": (65, 127), "enlarged": (20, 63), "4/8": (128, 255), "2/8": (256, 511), "1/8": (512, 700)}
MAX_BIAS = 0.1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawings of up to 750 px, at 4:2:0 as photographs are."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(701 + seed, 750 - seed) for seed in range(40)]
    stored = [(jpeg(draw(height, width, seed)), height, width) for seed, (height, width) in enumerate(sizes)]
    return write_pictures(folder / "a.beton", stored)


@pytest.fixture(scope="module")
def full(pictures: Path) -> list[NDArray[np.uint8]]:
    with Beton(pictures) as beton:
        return full_decode(beton)


def random_boxes(scale: str, samples: NDArray[np.int64], beton: Beton) -> Boxes:
    generator = np.random.default_rng(0)
    low, high = BOX_SIDES[scale]
    sides = generator.integers(low, high, (2, len(samples)), endpoint=True)
    top = generator.integers(0, beton.heights()[samples] - sides[0] + 1)
    left = generator.integers(0, beton.widths()[samples] - sides[1] + 1)
    flip = generator.random(len(samples)) < 0.5
    top, left, height, width = (a.astype(np.int32) for a in (top, left, *sides))
    return Boxes(top=top, left=left, height=height, width=width, flip=flip)


@pytest.mark.parametrize("scale", BOUNDS_DB)
def test_crops_at_each_dct_scale_are_true_and_without_bias(
    pictures: Path, full: list[NDArray[np.uint8]], scale: str
) -> None:
    samples = np.arange(40)
    with Beton(pictures) as beton:
        found = list(compare(beton, full, samples, random_boxes(scale, samples, beton), SIZE))
    assert {kind for kind, _ in found} == {(0, scale)}
    quality = summarise(SIZE, 0, scale, [difference for _, difference in found])
    assert quality.worst_db > BOUNDS_DB[scale]
    assert max(map(abs, quality.bias)) < MAX_BIAS


@pytest.mark.parametrize("scale", ["8/8", "4/8", "2/8"])
def test_the_bounds_would_show_a_crop_that_is_half_an_output_pixel_off(
    pictures: Path, full: list[NDArray[np.uint8]], scale: str
) -> None:
    samples = np.arange(40)
    moved = [np.roll(pixels, max(1, BOX_SIDES[scale][0] // SIZE // 2), axis=1) for pixels in full]
    with Beton(pictures) as beton:
        where = replace(random_boxes(scale, samples, beton), flip=np.zeros(40, np.bool_))
        found = [difference for _, difference in compare(beton, moved, samples, where, SIZE)]
    assert summarise(SIZE, 0, scale, found).worst_db < BOUNDS_DB[scale]

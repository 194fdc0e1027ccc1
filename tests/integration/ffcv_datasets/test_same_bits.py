"""An epoch's global batches are the same, bit for bit, whoever makes them, on any processor, from any start."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets import loader as loader_module
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import TrainView, boxes
from ffcv_datasets.decoder import Decoder
from ffcv_datasets.loader import Loader
from launcher.sample_order import order, rank_batches
from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.ffcv_datasets.pictures import draw, write_pictures
from tests.integration.ffcv_datasets.test_levels import levels_file

__all__ = ["levels_file"]

Pixels = NDArray[np.uint8]
SEED, EPOCH, EPOCH_SAMPLES, GLOBAL_BATCH = 5, 6, 8, 4


@dataclass(frozen=True)
class Way:
    """How an epoch is made."""

    threads: int = 1
    workers: int = 1
    start: int = 0
    plain: bool = False
    """Portable code and libjpeg's own entropy decoding, instead of AVX2 and ours."""


WAYS = [
    Way(threads=2),
    Way(threads=4),
    Way(workers=2),
    Way(workers=4),
    Way(start=GLOBAL_BATCH),
    Way(plain=True),
    Way(threads=4, workers=2, start=GLOBAL_BATCH, plain=True),
]


def epoch(path: Path, resolution: int, way: Way, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """The images of all global batches from `way.start` on, those of the ranks one after the other in each."""
    monkeypatch.setattr(loader_module, "Decoder", partial(Decoder, plain=way.plain))
    view = TrainView(SEED, EPOCH, resolution)
    shares = []
    for rank in range(way.workers):
        with Loader(path, threads=way.threads) as loader:
            numbers = rank_batches(
                order(SEED, EPOCH, loader.num_samples),
                start=way.start,
                until=EPOCH_SAMPLES,
                global_batch=GLOBAL_BATCH,
                rank=rank,
                world_size=way.workers,
            )
            shares.append([batch.images.copy() for batch in loader.batches(numbers, view)])
    return np.concatenate([images for step in zip(*shares, strict=True) for images in step])


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("file", ["jpg", "proportion", "levels"])
def test_an_epoch_is_the_same_however_it_is_made(
    stock_files: StockFiles, levels_file: Path, file: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = levels_file if file == "levels" else stock_files[file]
    for resolution in (24, 96, 160, 288):
        expected = epoch(path, resolution, Way(), monkeypatch)[way.start :]
        assert (epoch(path, resolution, way, monkeypatch) == expected).all()


KINDS: dict[str, dict[str, object]] = {
    "420": {"subsampling": "4:2:0"},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "411": {"subsampling": "4:1:1"},
    "own tables": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "poor": {"quality": 3},
    "perfect": {"quality": 100, "optimize": True},
}


def compress(kind: str, pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    mode = kind if kind in ("L", "CMYK") else "RGB"
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 90} | KINDS.get(kind, {}))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [*KINDS, "L", "CMYK"])
def test_every_kind_of_jpeg_has_the_same_pixels_with_and_without_what_makes_it_fast(tmp_path: Path, kind: str) -> None:
    stored = []
    for seed, (height, width) in enumerate([(333, 250), (17, 33), (1, 1), (96, 128), (40, 301)]):
        stored.append((compress(kind, draw(height, width, seed)), height, width))
    path = write_pictures(tmp_path / "a.beton", stored)
    with Beton(path) as beton:
        samples = np.tile(np.arange(beton.num_samples), 30)
        for resolution in (1, 2, 3, 5, 16, 61, 224):
            view = TrainView(1, resolution, resolution, crop_scale=(0.001, 1.0), crop_ratio=(0.2, 5.0))
            where = boxes(view, np.arange(len(samples)), beton.heights()[samples], beton.widths()[samples])
            fast, plain = (np.full((len(samples), resolution, resolution, 3), fill, np.uint8) for fill in (7, 9))
            Decoder().decode(beton, samples, where, fast)
            Decoder(plain=True).decode(beton, samples, where, plain)
            assert (fast == plain).all()


@pytest.mark.parametrize(
    "change", [lambda data: data + b"beyond", lambda data: data[:-2], lambda data: data[:-2] + b"\xff\x00"]
)
def test_a_jpeg_that_does_not_end_with_its_file_is_judged_the_same(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = write_pictures(tmp_path / "a.beton", [(change(compress("420", draw(96, 128))), 96, 128)] * 200)
    with Beton(path) as beton:
        samples = np.arange(beton.num_samples)
        where = boxes(TrainView(1, 1, 16), samples, beton.heights(), beton.widths())
        fast, plain = (np.zeros((len(samples), 16, 16, 3), np.uint8) for _ in range(2))
        found = Decoder().try_decode(beton, samples, where, fast)
        right = Decoder(plain=True).try_decode(beton, samples, where, plain)
    assert {sample: str(error) for sample, error in found.items()} == {i: str(error) for i, error in right.items()}
    sound = [sample for sample in samples if sample not in found]
    assert len(sound) > 9
    assert (fast[sound] == plain[sound]).all()

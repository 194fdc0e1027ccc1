"""Data sets of torchvision, as they lie on disk."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import Card
from ffcv_datasets.picture import Encoding
from ffcv_datasets.samples import SourceError
from ffcv_datasets.sources import open_source
from ffcv_datasets.targets import read_mask
from ffcv_datasets.write import BadImagesError, write_betons
from tests.integration.ffcv_datasets.pictures import draw, jpeg


def write(out: Path, source: str, **settings: str) -> list[Card]:
    """Write all splits as OUT-split; returns their cards."""
    parts = [
        (out.with_name(f"{out.stem}{name}.beton"), samples) for name, samples in open_source(source, settings).items()
    ]
    cards = [written.card for written in write_betons(parts, Encoding(share_jpeg=0), num_workers=1)]
    return [card for card in cards if card]


def idx(values: np.ndarray) -> bytes:
    """MNIST's file format."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(generator.integers(0, 256, (count, 28, 28), np.uint8)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return tmp_path / "data"


def test_both_splits_of_a_data_set_in_memory_are_written(mnist: Path, tmp_path: Path) -> None:
    train, val = write(tmp_path / "m.beton", "torchvision:MNIST", root=str(mnist))
    assert (train.num_samples, val.num_samples, train.source) == (30, 20, "torchvision:MNIST")
    assert train.classes is not None
    assert train.classes[:2] == ("0 - zero", "1 - one")
    stored = (mnist / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    with Beton(tmp_path / "mtrain.beton") as beton:
        assert beton.labels().tolist() == [index % 10 for index in range(30)]
        grey = np.frombuffer(stored, np.uint8).reshape(30, 28, 28)
        assert (np.frombuffer(beton.image_bytes(7), np.uint8).reshape(28, 28, 3) == grey[7][..., None]).all()


def test_one_split_is_chosen_by_its_argument(mnist: Path, tmp_path: Path) -> None:
    (card,) = write(tmp_path / "m.beton", "torchvision:MNIST", root=str(mnist), train="false")
    assert card.num_samples == 20


@pytest.fixture
def food(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "food-101"
    (folder / "meta").mkdir(parents=True)
    for name in ("pizza", "soup"):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "images" / name / "1.jpg").write_bytes(jpeg(draw(40, 60, len(name))))
    (folder / "meta" / "train.json").write_text(json.dumps({"pizza": ["pizza/1"], "soup": ["soup/1"]}))
    return tmp_path / "data"


def test_jpeg_files_are_kept_byte_for_byte_where_there_are_some(food: Path, tmp_path: Path) -> None:
    (samples,) = open_source("torchvision:Food101", {"root": str(food), "split": "train"}).values()
    write_betons([(tmp_path / "f.beton", samples)], Encoding(), num_workers=1)
    with Beton(tmp_path / "f.beton") as beton:
        assert beton.labels().tolist() == [0, 1]
        assert beton.image_bytes(1) == (food / "food-101" / "images" / "soup" / "1.jpg").read_bytes()


def test_a_damaged_file_is_named(food: Path, tmp_path: Path) -> None:
    path = food / "food-101" / "images" / "soup" / "1.jpg"
    path.write_bytes(b"")
    with pytest.raises(BadImagesError) as caught:
        write(tmp_path / "f.beton", "torchvision:Food101", root=str(food))
    assert str(caught.value.images[0]) == f"{path}: the file is empty"


def test_masks_of_a_segmentation_data_set_keep_their_numbers(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("1\n")
    (root / "JPEGImages" / "1.jpg").write_bytes(jpeg(draw(20, 30)))
    mask = np.random.default_rng(0).integers(0, 21, (20, 30)).astype(np.uint8)
    image = Image.fromarray(mask, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(root / "SegmentationClass" / "1.png")
    (card,) = write(tmp_path / "v.beton", "torchvision:VOCSegmentation", root=str(tmp_path))
    assert card.fields == ("image", "mask")
    with Beton(tmp_path / "v.beton") as beton:
        assert (read_mask(beton, 0) == mask).all()


def test_arguments_become_numbers_where_they_are_such(tmp_path: Path) -> None:
    (card,) = write(tmp_path / "f.beton", "torchvision:FakeData", size="3", num_classes="4")
    assert (card.num_samples, card.classes) == (3, None)


@pytest.mark.parametrize(
    ("source", "settings", "sentence"),
    [
        ("NoSuch", {}, "torchvision has no such data set"),
        ("CIFAR10", {}, "needs root=..., the folder where it lies"),
        ("CIFAR10", {"root": "{here}"}, "cannot be opened: Dataset not found or corrupted.; --download fetches it"),
        ("CIFAR10", {"root": "{here}", "trian": "true"}, "takes no trian=...; did you mean train?"),
        ("CIFAR10", {"root": "{here}", "download": "true"}, "takes no download="),
        ("CIFAR10", {"root": "{here}", "train": "yes"}, "train=yes is neither true nor false"),
        ("FakeData", {"size": "many"}, "size=many is no number"),
        ("FakeData", {"size": "0"}, "is empty"),
        ("EMNIST", {"root": "{here}"}, "needs split=..."),
        ("SEMEION", {"root": "{here}"}, "cannot be opened: Dataset not found or corrupted"),
        ("Flowers102", {"root": "{here}", "split": "x"}, "Unknown value 'x' for argument split"),
        ("ImageNet", {"root": "{here}"}, "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_told(tmp_path: Path, source: str, settings: dict[str, str], sentence: str) -> None:
    filled = {name: value.format(here=tmp_path) for name, value in settings.items()}
    with pytest.raises(SourceError) as caught:
        open_source(f"torchvision:{source}", filled)
    assert str(caught.value).startswith(f"torchvision:{source}: ")
    assert sentence in str(caught.value)


def test_a_download_is_refused_where_torchvision_has_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="torchvision cannot download it"):
        open_source("torchvision:FER2013", {"root": str(tmp_path)}, download=True)
    with pytest.raises(SourceError, match="only data sets of torchvision can be downloaded"):
        open_source(str(tmp_path), {}, download=True)

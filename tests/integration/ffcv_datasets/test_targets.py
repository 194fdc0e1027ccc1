"""Masks and boxes beside their images: through crops, levels, copies, and stock FFCV."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.annotated import list_annotated
from ffcv_datasets.beton import Beton
from ffcv_datasets.card import read_card
from ffcv_datasets.crop import CentreView, TrainView, View, boxes
from ffcv_datasets.decoder import Decoder
from ffcv_datasets.picture import Encoding
from ffcv_datasets.repack import repack
from ffcv_datasets.target_crop import NO_BOX, crop_boxes, crop_masks
from ffcv_datasets.targets import read_boxes, read_mask
from ffcv_datasets.verify import find_faults
from ffcv_datasets.write import write_betons

NUM_IMAGES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, masks/ and boxes.json: a white rectangle on black, once in pixels, once as class 7, once as a box."""
    folder = tmp_path_factory.mktemp("rectangles")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(NUM_IMAGES):
        height, width = (int(side) for side in generator.integers(80, 200, 2))
        left, top = int(generator.integers(0, width // 2)), int(generator.integers(0, height // 2))
        right, bottom = int(generator.integers(left + 20, width)), int(generator.integers(top + 20, height))
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 7
        pixels = np.repeat((mask > 0)[..., None], 3, axis=-1).astype(np.uint8) * 255
        # Every third one lies on its side: EXIF says that it is to be turned.
        exif = Image.Exif()
        if index % 3 == 0:
            exif[0x0112] = 6
            pixels = np.rot90(pixels)
        Image.fromarray(pixels).save(folder / "images" / f"{index:02}.jpg", quality=95, subsampling=0, exif=exif)
        Image.fromarray(mask).save(folder / "masks" / f"{index:02}.png")
        images.append({"id": index, "file_name": f"{index:02}.jpg", "width": width, "height": height})
        box = [left, top, right - left, bottom - top]
        annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": box, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "rectangle"}]}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


def write(folder: Path, out: Path, encoding: Encoding) -> Path:
    splits = list_annotated(folder / "images", masks=folder / "masks", boxes=folder / "boxes.json")
    write_betons([(out, splits[""])], encoding, num_workers=1)
    return out


def span(is_seen: NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last."""
    (places,) = np.nonzero(is_seen)
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)


@pytest.mark.parametrize(
    "encoding", [Encoding(), Encoding(max_side=90), Encoding(further_sides=(60, 30), restart=True)]
)
@pytest.mark.parametrize("resolution", [24, 64, 150])
def test_image_mask_and_boxes_show_the_same_rectangle(
    folder: Path, tmp_path: Path, encoding: Encoding, resolution: int
) -> None:
    path = write(folder, tmp_path / "x.beton", encoding)
    views: list[View] = [CentreView(resolution), *(TrainView(5, epoch, resolution) for epoch in range(6))]
    samples = np.arange(NUM_IMAGES)
    num_cut = num_flipped = 0
    with Beton(path) as beton:
        masks = [read_mask(beton, sample) for sample in range(NUM_IMAGES)]
        targets = np.stack([read_boxes(beton, sample) for sample in range(NUM_IMAGES)])
        for view in views:
            crops = boxes(view, samples, beton.heights(), beton.widths())
            images = np.empty((NUM_IMAGES, resolution, resolution, 3), np.uint8)
            Decoder().decode(beton, samples, crops, images)
            seen = crop_masks(masks, crops, resolution, resolution)
            found = crop_boxes(targets, crops, resolution, resolution)
            for sample in range(NUM_IMAGES):
                bright = images[sample].mean(axis=-1) > 127
                mask = seen[sample] == 7
                assert set(np.unique(seen[sample]).tolist()) <= {0, 7}
                # A pixel of the stored image, which is blurred by JPEG and by a level's shrinking.
                scale = resolution / min(crops.height[sample], crops.width[sample])
                edge = 1 + scale * (1 if not encoding.further_sides else 3)
                # Centres of pixels decide which are the mask's: here, and before when it was shrunk with its image.
                rounding = 0.501 + (scale / 2 if encoding.max_side else 0)
                for along in (0, 1):
                    bright_span, mask_span = span(bright.any(axis=along)), span(mask.any(axis=along))
                    box = found[sample, 0, [along, along + 2]] if found[sample, 0, 4] != NO_BOX else np.zeros(2)
                    if mask_span[1] - mask_span[0] > 2 * edge:
                        assert np.abs(np.subtract(bright_span, mask_span)).max() <= edge
                        assert np.abs(np.subtract(box, mask_span)).max() <= rounding
                        num_cut += mask_span[0] == 0 or mask_span[1] == resolution
                num_flipped += bool(crops.flip[sample])
    assert num_cut > 20
    assert num_flipped > 20


def test_a_copy_keeps_masks_and_boxes_and_what_the_card_says_of_them(folder: Path, tmp_path: Path) -> None:
    path = write(folder, tmp_path / "a.beton", Encoding())
    copy = tmp_path / "b.beton"
    card, before = repack(path, copy, sides=(60,), restart=True), read_card(path)
    assert card is not None
    assert before is not None
    names = ("fields", "mask_bytes", "pixels_per_value", "categories", "boxes_per_category", "classes")
    assert [getattr(card, name) for name in names] == [getattr(before, name) for name in names]
    assert card.boxes_per_category == (NUM_IMAGES,)
    with Beton(path) as one, Beton(copy) as other:
        assert one.fields == other.fields == {"image": "image", "mask": "bytes", "boxes": "ndarray"}
        for sample in range(NUM_IMAGES):
            assert one.value("mask", sample) == other.value("mask", sample)
            assert (read_boxes(one, sample) == read_boxes(other, sample)).all()
        assert find_faults(other) == []


# In a process of its own: FFCV's import takes seconds, and it warns.
_STOCK = """
import sys
import numpy as np
from ffcv.fields.basics import IntDecoder
from ffcv.fields.bytes import BytesDecoder
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.fields.decoders import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption

path, out = sys.argv[1:]
pipelines = {"image": [CenterCropRGBImageDecoder((32, 32), 1)], "mask": [BytesDecoder()], "boxes": [NDArrayDecoder()]}
loader = Loader(path, 4, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines)
batches = [(images.copy(), masks.copy(), boxes.copy()) for images, masks, boxes in loader]
images, masks, boxes = (np.concatenate(column) for column in zip(*batches))
np.savez(out, images=images, masks=masks, boxes=boxes)
"""


def test_stock_ffcv_reads_images_masks_and_boxes(folder: Path, tmp_path: Path) -> None:
    path = write(folder, tmp_path / "x.beton", Encoding(further_sides=(60,), restart=True))
    command = [sys.executable, "-c", _STOCK, str(path), str(tmp_path / "read.npz")]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    read = np.load(tmp_path / "read.npz")
    assert read["images"].shape == (NUM_IMAGES, 32, 32, 3)
    with Beton(path) as beton:
        for sample in range(NUM_IMAGES):
            stored = np.frombuffer(beton.value("mask", sample), np.uint8)
            assert (read["masks"][sample][: len(stored)] == stored).all()
            assert (read["boxes"][sample] == read_boxes(beton, sample)).all()

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.annotated import list_annotated
from ffcv_datasets.beton import Beton
from ffcv_datasets.card import Card, read_card
from ffcv_datasets.picture import Encoding, PictureError
from ffcv_datasets.samples import SourceError
from ffcv_datasets.target_crop import NO_BOX
from ffcv_datasets.targets import clip_boxes, decode_mask, encode_mask, fit_boxes, fit_mask, read_boxes, read_mask
from ffcv_datasets.verify import find_faults
from ffcv_datasets.write import BadImagesError, write_betons
from tests.unit.ffcv_datasets.coco_files import coco, write_coco

CLASSES = np.array([[0, 1, 2, 3], [15, 255, 7, 8]], np.uint8)


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def grey_png(values: NDArray[np.uint8], depth: int) -> bytes:
    """A greyscale PNG file of few bits per value, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(height, -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in bits)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def palette(values: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(values, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return image


def test_the_numbers_of_a_palette_are_the_classes() -> None:
    assert decode_mask(png(palette(CLASSES))).tolist() == CLASSES.tolist()
    assert decode_mask(png(palette(CLASSES % 4), bits=2)).tolist() == (CLASSES % 4).tolist()
    assert decode_mask(png(palette(CLASSES), transparency=255)).tolist() == CLASSES.tolist()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_values_are_the_classes_whatever_their_bits(depth: int) -> None:
    values = CLASSES & np.uint8(2**depth - 1)
    assert decode_mask(grey_png(values, depth)).tolist() == values.tolist()


def test_16_bits_are_kept() -> None:
    values = np.array([[0, 300], [65535, 256]], np.uint16)
    assert decode_mask(png(Image.fromarray(values))).tolist() == values.tolist()
    assert decode_mask(encode_mask(values)).dtype == np.uint16


@pytest.mark.parametrize("bits", [8, 16])
def test_masks_are_stored_without_loss(bits: int) -> None:
    mask = np.random.default_rng(0).integers(0, 2**bits, (31, 17)).astype(f"u{bits // 8}")
    assert (decode_mask(encode_mask(mask)) == mask).all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (png(Image.new("RGB", (2, 2))), r"its mask has colours \(RGB\); classes are the numbers of a palette or grey"),
        (png(Image.new("LA", (2, 2))), r"its mask has colours \(LA\)"),
        (png(Image.new("L", (99, 99)))[:60], "its mask is no PNG file, or a damaged one"),
        (b"", "its mask is no PNG file"),
        (b"\xff\xd8\xff", "its mask is no PNG file"),
    ],
)
def test_what_is_no_mask_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(PictureError, match=sentence):
        decode_mask(content)


def test_a_mask_follows_its_image_to_another_size() -> None:
    mask = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert fit_mask(mask, (6, 4), (3, 2)).tolist() == [[7, 9, 11], [19, 21, 23]]
    assert fit_mask(mask, (6, 4), (6, 4)) is mask
    with pytest.raises(PictureError, match="its mask is 6 x 4 px, the image 4 x 6 px"):
        fit_mask(mask, (4, 6), (4, 6))


def test_boxes_follow_their_image_and_are_padded() -> None:
    boxes = np.array([[0, 0, 10, 20, 3], [-5, 15, 3, 25, 1], [30, 0, 40, 5, 1]], np.float32)
    clipped = clip_boxes(boxes, (30, 20))
    assert clipped.tolist() == [[0, 0, 10, 20, 3], [0, 15, 3, 20, 1]]
    fitted = fit_boxes(clipped, (30, 20), (15, 10), num_rows=3)
    assert fitted.tolist() == [[0, 0, 5, 10, 3], [0, 7.5, 1.5, 10, 1], [NO_BOX] * 5]


def street(root: Path, *, split: str = "") -> tuple[Path, Path]:
    """Folders of images and of masks: two towns with an image each."""
    images, masks = root / "images" / split, root / "masks" / split
    for number, name in enumerate(("aachen/1", "bonn/2")):
        for folder in (images, masks):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + 20 * number, 30), (number, 0, 0)).save(images / f"{name}.jpg")
        palette(np.full((30, 40 + 20 * number), 5 + number, np.uint8)).save(masks / f"{name}.png")
    return images, masks


def write(out: Path, images: Path, encoding: Encoding | None = None, **annotations: Path) -> Card:
    parts = [
        (out.with_suffix(f".{name}.beton") if name else out, s)
        for name, s in list_annotated(images, **annotations).items()
    ]
    (written, *_) = write_betons(parts, encoding or Encoding(), num_workers=1)
    assert written.card is not None
    return written.card


def test_images_and_masks_make_a_file_without_labels(tmp_path: Path) -> None:
    images, masks = street(tmp_path)
    out = tmp_path / "x.beton"
    card = write(out, images, masks=masks)
    assert read_card(out) == card
    assert (card.fields, card.classes, card.source) == (("image", "mask"), None, "images")
    assert card.pixels_per_value == {5: 1200, 6: 1800}
    with Beton(out) as beton:
        assert beton.fields == {"image": "image", "mask": "bytes"}
        assert card.mask_bytes == sum(len(beton.value("mask", sample)) for sample in range(2))
        assert [read_mask(beton, sample).shape for sample in range(2)] == [(30, 40), (30, 60)]
        assert find_faults(beton) == []


def test_masks_shrink_with_their_images(tmp_path: Path) -> None:
    images, masks = street(tmp_path)
    write(tmp_path / "x.beton", images, Encoding(max_side=20, further_sides=(8,)), masks=masks)
    with Beton(tmp_path / "x.beton") as beton:
        for sample in range(2):
            assert read_mask(beton, sample).shape == (beton.heights()[sample], beton.widths()[sample])
        assert find_faults(beton) == []


def test_both_splits_are_listed_where_images_and_masks_have_them(tmp_path: Path) -> None:
    street(tmp_path, split="train")
    images, masks = (folder.parent for folder in street(tmp_path, split="val"))
    assert list(list_annotated(images, masks=masks)) == ["train", "val"]
    with pytest.raises(SourceError, match=r"holds train/ and val/, and .* tells of one; write each alone"):
        list_annotated(images, boxes=tmp_path / "x.json")


def test_what_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    images, masks = street(tmp_path)
    (masks / "bonn" / "2.png").unlink()
    with pytest.raises(SourceError, match=r"masks: 1 masks are not there, such as bonn/2\.png"):
        list_annotated(images, masks=masks)
    with pytest.raises(SourceError, match="nowhere: there is no such folder of masks"):
        list_annotated(images, masks=tmp_path / "nowhere")
    with pytest.raises(SourceError, match="nowhere: there is no such folder"):
        list_annotated(tmp_path / "nowhere", masks=masks)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: holds no images"):
        list_annotated(tmp_path / "empty", masks=masks)


def test_a_mask_of_another_size_or_kind_is_a_bad_image(tmp_path: Path) -> None:
    images, masks = street(tmp_path)
    Image.new("L", (30, 40)).save(masks / "aachen" / "1.png")
    (masks / "bonn" / "2.png").write_bytes(b"cut")
    with pytest.raises(BadImagesError) as caught:
        write(tmp_path / "x.beton", images, masks=masks)
    assert [str(image).partition(".jpg: ")[2].partition(",")[0] for image in caught.value.images] == [
        "its mask is 30 x 40 px",
        "its mask is no PNG file",
    ]


def test_boxes_are_stored_in_pixels_of_the_stored_image(tmp_path: Path) -> None:
    images, _ = street(tmp_path)
    boxes = write_coco(
        tmp_path,
        coco(
            {"aachen/1.jpg": (40, 30), "bonn/2.jpg": (60, 30)},
            [(1, 70, 10, 5, 20, 10), (1, 3, -5, 0, 25, 90), (2, 3, 0, 0, 60, 30)],
        ),
    )
    out = tmp_path / "x.beton"
    card = write(out, images, Encoding(max_side=20), boxes=boxes)
    assert (card.fields, card.categories, card.boxes_per_category) == (("image", "boxes"), ("c3", "c70"), (2, 1))
    with Beton(out) as beton:
        assert beton.fields == {"image": "image", "boxes": "ndarray"}
        assert read_boxes(beton, 0).tolist() == [[5, 2.5, 15, 7.5, 1], [0, 0, 10, 15, 0]]
        assert read_boxes(beton, 1).tolist() == [[0, 0, 20, 10, 0], [NO_BOX] * 5]
        assert find_faults(beton) == []


def test_masks_and_boxes_go_together_and_images_that_are_not_told_of_are_left_out(tmp_path: Path) -> None:
    images, masks = street(tmp_path)
    boxes = write_coco(tmp_path, coco({"bonn/2.jpg": (60, 30)}, [(1, 3, 0, 0, 9, 9)], crowds=[(1, 3, 0, 0, 5, 5)]))
    (samples,) = list_annotated(images, masks=masks, boxes=boxes).values()
    assert samples.files == ("bonn/2.jpg",)
    assert samples.notes == (f"left out: 1 images that {boxes} does not name", "left out: 1 regions of crowds")
    assert write(tmp_path / "x.beton", images, masks=masks, boxes=boxes).fields == ("image", "mask", "boxes")


def test_boxes_of_images_that_are_missing_or_of_another_size_are_refused(tmp_path: Path) -> None:
    images, _ = street(tmp_path)
    boxes = write_coco(tmp_path, coco({"aachen/1.jpg": (40, 31)}, []))
    with pytest.raises(BadImagesError) as caught:
        write(tmp_path / "x.beton", images, boxes=boxes)
    assert caught.value.images[0].reason == "its boxes are of 40 x 31 px, it has 40 x 30 px"
    boxes = write_coco(tmp_path, coco({"koeln/3.jpg": (40, 31)}, []))
    with pytest.raises(SourceError, match=r"1 images that .* tells of are not there, such as koeln/3\.jpg"):
        list_annotated(images, boxes=boxes)


def test_an_image_without_boxes_has_padding_alone(tmp_path: Path) -> None:
    images, _ = street(tmp_path)
    write(tmp_path / "x.beton", images, boxes=write_coco(tmp_path, coco({"aachen/1.jpg": (40, 30)}, [])))
    with Beton(tmp_path / "x.beton") as beton:
        assert read_boxes(beton, 0).tolist() == [[NO_BOX] * 5]


@pytest.mark.parametrize("field", ["mask", "boxes"])
def test_damage_to_a_mask_or_to_boxes_is_found(tmp_path: Path, field: str) -> None:
    images, masks = street(tmp_path)
    boxes = write_coco(tmp_path, coco({"aachen/1.jpg": (40, 30), "bonn/2.jpg": (60, 30)}, [(2, 3, 1, 2, 3, 4)]))
    out = tmp_path / "x.beton"
    write(out, images, masks=masks, boxes=boxes)
    with Beton(out) as beton:
        place = beton.column(field)[1]
    content = bytearray(out.read_bytes())
    content[int(place["offset"] if field == "mask" else place) + 17] ^= 1
    out.write_bytes(content)
    with Beton(out) as beton:
        (fault,) = find_faults(beton)
    assert (fault.sample, fault.field) == (1, field)
    assert "the bytes of sample 1 are not those that were written" in str(fault)

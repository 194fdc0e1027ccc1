import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import Boxes, TrainView, boxes
from ffcv_datasets.decoder import DataError, Decoder
from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.ffcv_datasets.pictures import draw, jpeg, write_pictures

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # top, left, height, width


def decode(path: Path, sample: int, box: Box, height: int, width: int, *, flip: bool = False) -> Pixels:
    out = np.full((1, height, width, 3), 77, np.uint8)
    with Beton(path) as beton:
        Decoder().decode(beton, np.array([sample]), alike(1, box, flip=flip), out)
    picture: Pixels = out[0]
    return picture


def alike(count: int, box: Box, *, flip: bool = False) -> Boxes:
    top, left, height, width = (np.full(count, side, np.int32) for side in box)
    return Boxes(top, left, height, width, np.full(count, flip))


def area_weights(start: float, length: float, out: int, pixels: int) -> NDArray[np.float64]:
    """(out, pixels): the share that each pixel has in each output pixel's interval."""
    borders = start + length * np.arange(out + 1) / out
    starts = np.arange(pixels)
    overlap = np.minimum(borders[1:, None], starts + 1) - np.maximum(borders[:-1, None], starts)
    return overlap.clip(0) / (length / out)


def bilinear_weights(start: int, length: int, out: int, pixels: int) -> NDArray[np.float64]:
    """(out, pixels): interpolation with half-pixel centres, the borders of the box repeated."""
    centres = (start + (np.arange(out) + 0.5) * length / out - 0.5).clip(start, start + length - 1)
    return (1 - np.abs(centres[:, None] - np.arange(pixels))).clip(0)


def resample(pixels: Pixels, box: Box, height: int, width: int) -> NDArray[np.float64]:
    """The definition of what the C core computes, in double precision."""
    top, left, box_height, box_width = box
    rows = area_weights if box_height >= height else bilinear_weights
    columns = area_weights if box_width >= width else bilinear_weights
    down = rows(top, box_height, height, pixels.shape[0])
    across = columns(left, box_width, width, pixels.shape[1])
    result: NDArray[np.float64] = np.einsum("oy,yxc,px->opc", down, pixels.astype(np.float64), across, optimize=True)
    return result


@pytest.mark.parametrize("size", [(50, 70), (49, 71), (160, 120), (200, 300), (20, 300), (7, 5), (1, 1)])
@pytest.mark.parametrize("box", [(0, 0, 160, 240), (13, 5, 100, 141), (159, 239, 1, 1), (3, 200, 150, 2)])
def test_raw_pixels_are_resampled_as_defined(tmp_path: Path, box: Box, size: tuple[int, int]) -> None:
    picture = draw(160, 240)
    path = write_pictures(tmp_path / "a.beton", [(picture.tobytes(), 160, 240)])
    error = decode(path, 0, box, *size) - resample(picture, box, *size)
    assert np.abs(error).max() < 1.0  # half a grey level by rounding to a byte, the rest by 8-bit row weights
    assert abs(error.mean()) < (0.02 if error.size > 1000 else 1.0)


def test_a_box_of_the_output_size_is_copied(tmp_path: Path) -> None:
    picture = draw(40, 60)
    path = write_pictures(tmp_path / "a.beton", [(picture.tobytes(), 40, 60)])
    assert (decode(path, 0, (7, 9, 20, 30), 20, 30) == picture[7:27, 9:39]).all()


def test_extreme_pixels_stay_extreme(tmp_path: Path) -> None:
    for value in (0, 255):
        path = write_pictures(tmp_path / "a.beton", [(bytes([value]) * (3 * 50 * 60), 50, 60)])
        for size in (7, 33, 90):
            assert (decode(path, 0, (1, 2, 47, 53), size, size) == value).all()


def test_flip_is_the_mirror_image(stock_files: StockFiles) -> None:
    for name in ("jpg", "raw"):
        plain = decode(stock_files[name], 0, (13, 27, 301, 207), 96, 96)
        assert (decode(stock_files[name], 0, (13, 27, 301, 207), 96, 96, flip=True) == plain[:, ::-1]).all()


JPEG_KINDS: dict[str, dict[str, object]] = {
    "420": {"subsampling": "4:2:0"},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "411": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("scale", [8, 4, 2, 1])
def test_a_region_equals_that_part_of_the_whole(tmp_path: Path, kind: str, scale: int) -> None:
    shrink = 8 // scale
    height, width = 24 * 8, 31 * 8
    path = write_pictures(tmp_path / "a.beton", [(jpeg(draw(height, width), **JPEG_KINDS[kind]), height, width)])
    whole = decode(path, 0, (0, 0, height, width), height // shrink, width // shrink)
    random = np.random.default_rng(0)
    for _ in range(60):
        # Boxes on whole pixels of the scaled image are copied, not blended.
        box_height, box_width = random.integers(1, whole.shape[0] + 1), random.integers(1, whole.shape[1] + 1)
        top = random.integers(0, whole.shape[0] - box_height + 1)
        left = random.integers(0, whole.shape[1] - box_width + 1)
        box = (top * shrink, left * shrink, box_height * shrink, box_width * shrink)
        part = decode(path, 0, box, box_height, box_width)
        assert (part == whole[top : top + box_height, left : left + box_width]).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(draw(48, 64)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling="4:4:4")
    expected = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    path = write_pictures(tmp_path / "a.beton", [(buffer.getvalue(), 48, 64)])
    assert np.abs(decode(path, 0, (0, 0, 48, 64), 48, 64) - expected).max() <= 2


@pytest.mark.parametrize("resolution", [32, 96, 160, 288])
def test_bits_depend_on_neither_threads_nor_batch_nor_order(stock_files: StockFiles, resolution: int) -> None:
    with Beton(stock_files["proportion"]) as beton:
        samples = np.arange(beton.num_samples).repeat(3)
        view = TrainView(3, 1, resolution)
        where = boxes(view, samples, beton.heights()[samples], beton.widths()[samples])

        def run(threads: int, batch: int, order: NDArray[np.int64]) -> Pixels:
            decoder = Decoder(threads)
            out = np.empty((len(samples), resolution, resolution, 3), np.uint8)
            for i in range(0, len(order), batch):
                part = order[i : i + batch]
                pixels = np.full((len(part), resolution, resolution, 3), 99, np.uint8)
                decoder.decode(beton, samples[part], pick(where, part), pixels)
                out[part] = pixels
            return out

        forwards = np.arange(len(samples))
        base = run(1, len(samples), forwards)
        for threads, batch in [(2, 30), (4, 7), (3, 1)]:
            assert (run(threads, batch, forwards) == base).all()
        assert (run(2, 4, np.random.default_rng(0).permutation(forwards)) == base).all()


def pick(where: Boxes, part: NDArray[np.int64]) -> Boxes:
    return Boxes(where.top[part], where.left[part], where.height[part], where.width[part], where.flip[part])


WHOLE = (0, 0, 120, 160)
GOOD = jpeg(draw(120, 160))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "nothing is stored"),
        (b"GIF89a" + bytes(300), "Not a JPEG"),
        (GOOD[: len(GOOD) // 2], "premature end|Premature end"),
        (GOOD[: len(GOOD) // 2] + bytes(len(GOOD) // 2), "Corrupt JPEG|premature|Premature"),
        (jpeg(draw(120, 161)), "161 x 120 pixels, but the file's table says 160 x 120"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write_pictures(tmp_path / "a.beton", [(GOOD, 120, 160), (data, 120, 160), (GOOD, 120, 160)])
    with pytest.raises(DataError, match=rf"a\.beton: sample 1 cannot be decoded: .*({reason})"):
        decode(path, 1, WHOLE, 64, 64)
    assert decode(path, 2, WHOLE, 64, 64).std() > 10


def test_tables_left_by_one_image_do_not_serve_the_next(tmp_path: Path) -> None:
    tables, frame = GOOD.index(b"\xff\xdb"), GOOD.index(b"\xff\xc0")
    bare = GOOD[:tables] + GOOD[frame:]  # without its quantization tables
    path = write_pictures(tmp_path / "a.beton", [(GOOD, 120, 160), (bare, 120, 160)])
    out = np.empty((2, 64, 64, 3), np.uint8)
    with Beton(path) as beton, pytest.raises(DataError, match=r"sample 1 .*Quantization table"):
        Decoder().decode(beton, np.arange(2), alike(2, WHOLE), out)


def test_a_box_outside_its_image_is_refused(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.beton", [(GOOD, 120, 160)])
    for box in [(-1, 0, 9, 9), (0, 0, 121, 9), (0, 159, 9, 2), (0, 0, 0, 9), (2**31 - 1, 0, 2**31 - 1, 9)]:
        with pytest.raises(DataError, match="box"):
            decode(path, 0, box, 8, 8)


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DataError(Path("a.beton"), 3, "odd")))
    assert (error.sample, str(error)) == (3, str(DataError(Path("a.beton"), 3, "odd")))


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads"):
        Decoder(0)

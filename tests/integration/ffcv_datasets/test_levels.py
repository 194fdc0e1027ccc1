"""Files with further levels, restart markers and checksums: the same pixels, and damage that is found."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets._decode import _core
from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_writer import BetonWriter
from ffcv_datasets.crop import Boxes, TrainView, boxes
from ffcv_datasets.decoder import DataError, Decoder
from ffcv_datasets.picture import Encoding, StoredPicture, store_file, store_rgb
from tests.integration.ffcv_datasets.pictures import draw, jpeg
from tests.integration.ffcv_datasets.test_decoder import alike, area_weights

Pixels = NDArray[np.uint8]
SIZES = [(375, 500), (333, 250), (64, 48), (17, 33), (1, 1), (3, 200), (160, 160), (96, 129), (500, 373), (16, 700)]
KINDS: dict[str, dict[str, object]] = {
    "420": {"subsampling": "4:2:0"},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "411": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 7},
    "poor": {"quality": 5},
    "perfect": {"quality": 100},
}


def write(path: Path, pictures: list[StoredPicture], sides: tuple[int, ...] = ()) -> Path:
    with path.open("wb") as file:
        writer = BetonWriter(file, capacity=len(pictures), sides=sides)
        for label, picture in enumerate(pictures):
            writer.add({"image": picture, "label": label})
        writer.finish()
    return path


def decode(path: Path, samples: NDArray[np.int64], where: Boxes, resolution: int, threads: int = 1) -> Pixels:
    out = np.full((len(samples), resolution, resolution, 3), 77, np.uint8)
    with Beton(path) as beton:
        Decoder(threads).decode(beton, samples, where, out)
    return out


def random_boxes(path: Path, resolution: int, rounds: int) -> tuple[NDArray[np.int64], Boxes]:
    with Beton(path) as beton:
        samples = np.repeat(np.arange(beton.num_samples), rounds)
        view = TrainView(1, resolution, resolution, crop_scale=(0.001, 1.0), crop_ratio=(0.2, 5.0))
        # The same sample has the same box: other numbers give others.
        return samples, boxes(view, np.arange(len(samples)), beton.heights()[samples], beton.widths()[samples])


def tall_chroma(data: bytes) -> bytes:
    """A 4:2:2 JPEG as a 4:4:0 one of swapped sides, which Pillow does not write. It shows nonsense, but soundly."""
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x21
    swapped = bytearray(data)
    swapped[frame + 5 : frame + 9] = data[frame + 7 : frame + 9] + data[frame + 5 : frame + 7]
    swapped[frame + 11] = 0x12
    return bytes(swapped)


@pytest.mark.parametrize("kind", [*KINDS, "grey", "440"])
def test_restart_markers_change_no_pixel(tmp_path: Path, kind: str) -> None:
    mode = "L" if kind == "grey" else "RGB"
    plain, restarted = [], []
    for seed, (height, width) in enumerate(SIZES):
        picture = np.asarray(Image.fromarray(draw(height, width, seed)).convert(mode))
        rgb = Image.fromarray(picture).convert("RGB")
        data = jpeg(picture, **KINDS.get(kind, {}))
        if kind == "440":
            data = tall_chroma(jpeg(draw(width, height, seed), subsampling="4:2:2"))
        plain.append(replace(store_rgb(rgb, Encoding(), as_jpeg=True), data=data))
        marked, index = _core.add_restarts(data)
        assert index
        restarted.append(replace(plain[-1], data=marked, index=index))
    one, other = write(tmp_path / "plain.beton", plain), write(tmp_path / "restart.beton", restarted)
    for resolution in (3, 16, 48, 96, 200):
        samples, where = random_boxes(one, resolution, rounds=40)
        assert (decode(one, samples, where, resolution) == decode(other, samples, where, resolution)).all()


def test_restart_markers_leave_the_coefficients_as_they_are() -> None:
    data = jpeg(draw(100, 130), subsampling="4:2:2", progressive=True)
    marked, index = _core.add_restarts(data)
    # Rows of 9 MCUs, 16 x 8 pixels each, have no divisor of 2; an interval's length takes two bytes.
    assert len(index) == 2 * 9 * 13
    assert (np.asarray(Image.open(io.BytesIO(marked))) == np.asarray(Image.open(io.BytesIO(data)))).all()
    assert _core.add_restarts(marked) == (marked, index)


@pytest.mark.parametrize("data", [b"", b"GIF89a", jpeg(draw(90, 90))[:-900], jpeg(draw(9, 9))[:200]])
def test_a_damaged_file_gets_no_restart_markers(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        _core.add_restarts(data)


def test_four_inks_are_left_as_they_are() -> None:
    buffer = io.BytesIO()
    Image.fromarray(draw(9, 9)).convert("CMYK").save(buffer, "JPEG")
    with pytest.raises(ValueError, match="more than three colours"):
        _core.add_restarts(buffer.getvalue())


@pytest.fixture(scope="module")
def levels_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoding = Encoding(further_sides=(256, 120), restart=True)
    pictures = [
        store_rgb(Image.fromarray(draw(*size, seed)), encoding, as_jpeg=seed != 1) for seed, size in enumerate(SIZES)
    ]
    return write(tmp_path_factory.mktemp("levels") / "levels.beton", pictures, encoding.further_sides)


def test_levels_are_smaller_and_absent_where_no_use(levels_file: Path) -> None:
    with Beton(levels_file) as beton:
        first, second, third = beton.levels()
        assert beton.footer is not None
        assert beton.footer.sides == (256, 120)
        assert [(row["height"], row["width"]) for row in second] == [
            (192, 256), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (256, 191), (6, 256),
        ]  # fmt: skip
        assert (third["size"] > 0).tolist() == [True, *[False] * 4, *[True] * 5]
        assert (first["index_size"] > 0).tolist() == [True, False, *[True] * 8]  # sample 1 is raw
        assert (first["checksum"] > 0).all()


@pytest.mark.parametrize(("resolution", "level"), [(60, 2), (100, 1), (150, 1)])
def test_a_level_is_resampled_at_fractions_of_its_pixels(levels_file: Path, resolution: int, level: int) -> None:
    top, left, height, width = box = (31, 17, 300, 401)
    with Beton(levels_file) as beton:
        row = beton.levels()[level][0]
        level_height, level_width = int(row["height"]), int(row["width"])
        stored, _ = beton.level_bytes(0, level)
    with Image.open(io.BytesIO(stored)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    down = area_weights(top * level_height / 375, height * level_height / 375, resolution, level_height)
    across = area_weights(left * level_width / 500, width * level_width / 500, resolution, level_width)
    expected = np.einsum("oy,yxc,px->opc", down, pixels, across, optimize=True)
    where = alike(1, box)
    error = decode(levels_file, np.array([0]), where, resolution)[0] - expected
    assert np.abs(error).max() < 1.0
    assert abs(error.mean()) < 0.02


def test_bits_depend_on_neither_threads_nor_batches(levels_file: Path) -> None:
    for resolution in (32, 96, 128):
        samples, where = random_boxes(levels_file, resolution, rounds=10)
        whole = decode(levels_file, samples, where, resolution)
        assert (decode(levels_file, samples, where, resolution, threads=3) == whole).all()
        for part in np.array_split(np.random.default_rng(0).permutation(len(samples)), 7):
            some = Boxes(where.top[part], where.left[part], where.height[part], where.width[part], where.flip[part])
            assert (decode(levels_file, samples[part], some, resolution, threads=2) == whole[part]).all()


def damage(path: Path, target: Path, offset: int) -> Path:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    target.write_bytes(content)
    return target


def test_one_wrong_bit_in_what_is_read_is_found(levels_file: Path, tmp_path: Path) -> None:
    whole = alike(1, (0, 0, 375, 500))
    with Beton(levels_file) as beton:
        rows = [level[0] for level in beton.levels()]
    for row, resolution in zip(rows, (300, 150, 50), strict=True):
        for place in (0, row["size"] // 2, row["size"] - 1, row["size"], row["size"] + row["index_size"] - 1):
            cut = damage(levels_file, tmp_path / "cut.beton", int(row["offset"]) + int(place))
            with pytest.raises(DataError, match=r"cut\.beton: sample 0 .*checksum differs"):
                decode(cut, np.array([0]), whole, resolution)


def test_one_wrong_bit_in_the_tables_is_found(levels_file: Path, tmp_path: Path) -> None:
    content = levels_file.read_bytes()
    end = len(content)
    allocations_at = int.from_bytes(content[16:24], "little")
    with Beton(levels_file) as beton:
        assert beton.footer is not None
        levels_at = beton.footer.levels_at
    tables = [*range(2, 24), 30, 1100, *range(24 + 2 * 1041, 24 + 2 * 1041 + 240, 7)]
    tables += [*range(levels_at, allocations_at, 37), *range(allocations_at + 8, end, 11)]
    for place in tables:
        with pytest.raises(BetonError, match=r"cut\.beton: "):
            Beton(damage(levels_file, tmp_path / "cut.beton", place))


def test_a_wrong_index_with_a_right_checksum_is_no_crash(tmp_path: Path) -> None:
    good = store_rgb(Image.fromarray(draw(120, 160)), Encoding(restart=True), as_jpeg=True)
    random = np.random.default_rng(0)
    where = alike(1, (40, 50, 60, 70))
    indexes = [good.index[:-2], good.index + b"\0\0", bytes(len(good.index)), b"\xff" * len(good.index), b"x"]
    for _ in range(40):
        lengths = np.frombuffer(good.index, "<u2").copy()
        one, other = random.integers(0, len(lengths), 2)
        lengths[one] += 3  # the sum stays right
        lengths[other] -= 3
        indexes.append(lengths.tobytes())
    refused = 0
    for index in indexes:
        path = write(tmp_path / "a.beton", [replace(good, index=index)])
        try:
            decode(path, np.array([0]), where, 48)
        except DataError:
            refused += 1
    assert refused > 5


def test_a_jpeg_that_breaks_the_rules_is_encoded_anew() -> None:
    data = jpeg(draw(90, 90))
    odd = data[:-2] + bytes(50) + data[-2:]  # Pillow shows it, libjpeg warns of it
    picture = store_file(odd, Encoding(), as_jpeg=True)
    assert picture.is_jpeg
    assert not picture.is_kept


@pytest.mark.parametrize(
    "options", [{"max_side": 200, "further_sides": (200,)}, {"further_sides": (100, 200)}, {"further_sides": (0,)}]
)
def test_levels_that_do_not_fall_are_refused(options: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"levels: .*do not fall"):
        Encoding(**options)  # type: ignore[arg-type]

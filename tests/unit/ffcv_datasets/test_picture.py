from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.picture import Encoding, PictureError, StoredPicture, store_file, upright_rgb

RAW = Encoding(share_jpeg=0)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera held that way did to the picture, by EXIF orientation."""


def four_colours(width: int = 24, height: int = 16) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, WHITE
    return Image.fromarray(pixels)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> dict[str, Any]:
    """The picture as the camera stored it, and its EXIF block."""
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"image": image if turn is None else image.transpose(turn), "exif": exif}


def pixels_of(picture: StoredPicture) -> NDArray[np.uint8]:
    assert not picture.is_jpeg
    return np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, 3)


def stored_pixels(data: bytes) -> NDArray[np.uint8]:
    return pixels_of(store_file(data, RAW, as_jpeg=False))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_turned_picture_is_stored_upright(kind: str, orientation: int) -> None:
    options = turned(four_colours(), orientation) | ({"lossless": True} if kind == "WEBP" else {})
    data = file_of(kind=kind, **options)
    assert np.array_equal(stored_pixels(data), np.asarray(four_colours()))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", [(0, 0, 0), WHITE]),
        ("L", [(0, 0, 0), (200, 200, 200)]),
        ("P", [(0, 0, 0), (200, 200, 200)]),
        ("RGB", [RED, BLUE]),
        ("LA", [WHITE, (200, 200, 200)]),
        ("RGBA", [WHITE, BLUE]),
        ("I;16", [(0, 0, 0), (200, 200, 200)]),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(mode: str, expected: list[tuple[int, int, int]]) -> None:
    values: dict[str, list[Any]] = {
        "1": [0, 255],
        "L": [0, 200],
        "P": [0, 200],
        "RGB": [RED, BLUE],
        "LA": [(0, 0), (200, 255)],
        "RGBA": [(255, 0, 0, 0), (0, 0, 255, 255)],
        "I;16": [255, 200 * 257],
    }
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([level for value in range(256) for level in (value, value, value)])
    for x, value in enumerate(values[mode]):
        image.putpixel((x, 0), value)
    assert stored_pixels(file_of(image, "PNG")).tolist() == [[list(pixel) for pixel in expected]]


def test_half_transparent_parts_are_laid_over_white() -> None:
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert stored_pixels(file_of(image, "PNG")).tolist() == [[[127, 127, 127]]]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_shows_white(mode: str) -> None:
    image = Image.new(mode, (1, 1))
    key: int | tuple[int, int, int] = (0, 0, 0) if mode == "RGB" else 0
    assert stored_pixels(file_of(image, "PNG", transparency=key)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_grey_keeps_its_upper_bits(big_endian: bool) -> None:
    levels = np.array([[0, 255, 256, 65535]], ">u2" if big_endian else "<u2")
    image = Image.frombytes("I;16B" if big_endian else "I;16", (4, 1), levels.tobytes())
    assert np.asarray(upright_rgb(image))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(PictureError, match="32-bit numbers of unknown range; convert it to 8 or 16 bits"):
        stored_pixels(file_of(Image.new(mode, (2, 2)), "TIFF"))


def without_segment(data: bytes, marker: int) -> bytes:
    """A JPEG file without its first segment of that marker."""
    start = data.index(bytes((0xFF, marker)))
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def test_cmyk_is_read_with_its_polarity() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    inverted = file_of(inks, "JPEG", quality=100)
    plain = without_segment(file_of(Image.eval(inks, lambda ink: 255 - ink), "JPEG", quality=100), 0xEE)
    assert b"Adobe" in inverted
    assert b"Adobe" not in plain
    for data in (inverted, plain, file_of(inks, "TIFF")):
        assert np.abs(stored_pixels(data).astype(int) - RED).max() <= 2


def test_only_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (2, 2), RED), Image.new("RGB", (2, 2), BLUE)]
    data = file_of(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert stored_pixels(data)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_an_rgb_jpeg_that_fits_is_stored_byte_for_byte(options: dict[str, Any]) -> None:
    data = file_of(four_colours(), "JPEG", quality=97, comment=b"kept", **options)
    picture = store_file(data, Encoding(max_side=24), as_jpeg=True)
    assert picture.data == data
    assert picture.is_kept
    assert (picture.width, picture.height) == (24, 16)


def jpegs_not_to_keep() -> dict[str, bytes]:
    upright = four_colours()
    return {
        "too large": file_of(four_colours(25, 16), "JPEG"),
        "turned": file_of(kind="JPEG", **turned(upright, 6)),
        "grey": file_of(upright.convert("L"), "JPEG"),
        "CMYK": file_of(upright.convert("CMYK"), "JPEG"),
        "RGB inside": file_of(upright, "JPEG", keep_rgb=True),
        "two in one": file_of(upright, "MPO", save_all=True, append_images=[upright]),
        "no JPEG": file_of(upright, "PNG"),
    }


@pytest.mark.parametrize("kind", jpegs_not_to_keep())
def test_what_does_not_fit_is_encoded_anew(kind: str) -> None:
    data = jpegs_not_to_keep()[kind]
    picture = store_file(data, Encoding(max_side=24), as_jpeg=True)
    assert not picture.is_kept
    with Image.open(io.BytesIO(picture.data)) as stored:
        assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", (picture.width, picture.height))
        assert stored.getexif() == {}
    assert max(picture.width, picture.height) <= 24


def test_a_jpeg_is_encoded_anew_when_asked_for() -> None:
    data = file_of(four_colours(), "JPEG", quality=97)
    picture = store_file(data, Encoding(keep_jpeg=False, jpeg_quality=50), as_jpeg=True)
    assert not picture.is_kept
    assert len(picture.data) < len(data)


def test_a_long_comment_is_no_hindrance_and_not_copied() -> None:
    data = file_of(four_colours(), "GIF", comment=b"x" * 70_000)
    picture = store_file(data, Encoding(), as_jpeg=True)
    assert b"xxx" not in picture.data


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [((100, 50), 20, (20, 10)), ((50, 100), 20, (10, 20)), ((100, 1), 20, (20, 1)), ((20, 10), 20, (20, 10))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_longer_side_is_shrunk_never_enlarged(
    kind: str, size: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    encoding = Encoding(max_side=max_side, share_jpeg=0)
    picture = store_file(file_of(four_colours(*size), kind), encoding, as_jpeg=False)
    assert (picture.width, picture.height) == expected


def test_shrinking_averages_what_it_cannot_show() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    picture = store_file(file_of(Image.fromarray(board), "PNG"), Encoding(max_side=16), as_jpeg=False)
    assert np.abs(pixels_of(picture).astype(int) - 127).max() <= 2


def test_the_histogram_counts_the_stored_pixels() -> None:
    picture = store_file(file_of(four_colours(4, 2), "PNG"), RAW, as_jpeg=False)
    assert picture.histogram[:, 255].tolist() == [4, 4, 4]
    assert picture.histogram.sum(axis=1).tolist() == [8, 8, 8]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_refused_however_it_is_stored(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = file_of(noise, kind)
    for as_jpeg in (True, False):
        with pytest.raises(PictureError):
            store_file(data[: len(data) // 2], Encoding(), as_jpeg=as_jpeg)


def test_an_image_of_a_billion_pixels_is_refused_before_it_is_decoded() -> None:
    tiny = file_of(four_colours(), "PPM")
    with pytest.raises(PictureError, match="more pixels than Pillow reads"):
        store_file(tiny.replace(b"24 16", b"40000 25000"), Encoding(), as_jpeg=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", r"not an image of a known kind \(JPEG, "),
        (b"\xff\xd8\xff\xe0", "not an image|damaged"),
        (file_of(four_colours(), "PNG")[:60], "not an image|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known kind"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        store_file(data, Encoding(), as_jpeg=True)


@pytest.mark.parametrize(("share", "num_jpeg"), [(0, 0), (0.25, 25), (0.5, 50), (0.99, 99), (1, 100)])
def test_the_jpeg_share_is_exact_and_evenly_spread(share: float, num_jpeg: int) -> None:
    encoding = Encoding(share_jpeg=share)
    chosen = [encoding.is_jpeg(index) for index in range(100)]
    assert sum(chosen) == num_jpeg
    assert abs(sum(chosen[:50]) - num_jpeg / 2) <= 1


@pytest.mark.parametrize("options", [{"max_side": 0}, {"jpeg_quality": 101}, {"share_jpeg": 1.5}])
def test_an_impossible_encoding_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: "):
        Encoding(**options)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.picture import Encoding, StoredPicture
from ffcv_datasets.synthetic import CLASSES, SHAPES, TEXTURES, DrawnSamples, draw_image, is_drawn
from ffcv_datasets.write import write_betons


def test_a_picture_follows_from_seed_and_index() -> None:
    first, label = draw_image(3, 17, 64)
    again, _ = draw_image(3, 17, 64)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert label == 17 % len(CLASSES)
    assert np.array_equal(first, again)
    for seed, index in [(4, 17), (3, 17 + len(CLASSES))]:
        assert not np.array_equal(first, draw_image(seed, index, 64)[0])


def test_textures_differ_neither_in_mean_nor_in_contrast() -> None:
    phases = np.linspace(0, 40 * np.pi, 1000, endpoint=False, dtype=np.float32)
    for texture in TEXTURES.values():
        drawn = texture(phases[None, :], phases[:, None])
        assert abs(drawn.mean()) < 1e-2
        assert abs((drawn**2).mean() - 0.5) < 1e-2


def test_textures_do_not_change_when_mirrored() -> None:
    phases = np.linspace(-20, 20, 101, dtype=np.float32)
    for texture in TEXTURES.values():
        drawn = texture(phases[None, :], phases[:, None])
        assert np.allclose(abs(drawn), abs(drawn[:, ::-1]), atol=1e-5)


def test_every_shape_covers_its_centre_and_little_beyond_its_radius() -> None:
    places = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    x, y = np.meshgrid(places, places)
    for outline in SHAPES.values():
        inside = outline(x, y) < 0
        assert inside[150, 150]
        assert np.abs(x[inside]).max() <= 1.2
        assert np.abs(y[inside]).max() <= 1.2


def test_an_area_filter_removes_the_texture_at_a_quarter_of_the_size() -> None:
    """Brightness steps between neighbours down the middle of discs, those with rows against those with columns."""

    def step_down(size: int, first: int) -> float:
        steps = []
        for index in range(first, 1200, len(CLASSES)):
            picture = Image.fromarray(draw_image(0, index, 64)[0]).resize((size, size), Image.Resampling.BOX)
            bright = np.asarray(picture, np.float64).mean(axis=2)
            middle = bright[size * 2 // 5 : size * 3 // 5, size * 2 // 5 : size * 3 // 5]
            steps.append(np.abs(np.diff(middle, axis=0)).mean())
        return float(np.mean(steps))

    rows, columns = CLASSES.index("disc-rows"), CLASSES.index("disc-columns")
    assert step_down(64, rows) > 1.8 * step_down(64, columns)
    assert step_down(16, rows) < 1.1 * step_down(16, columns)


def test_samples_are_the_drawings_of_their_numbers() -> None:
    for samples in (DrawnSamples(0, 16, 30), DrawnSamples(0, 16, 30, validation=True)):
        offset = (1 << 32) if samples.validation else 0
        for index in range(len(samples)):
            stored = samples.item(index).store(Encoding(share_jpeg=0), as_jpeg=False).values
            pixels, label = draw_image(0, offset + index, 16)
            assert isinstance(stored["image"], StoredPicture)
            assert (stored["image"].data, stored["label"]) == (pixels.tobytes(), label)


def test_a_drawn_file_is_known_again_by_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    samples = DrawnSamples(seed=1, size=16, num_samples=5)
    assert not is_drawn(path, samples)
    write_betons([(path, samples)], Encoding(), num_workers=1)
    assert is_drawn(path, samples)
    for other in (DrawnSamples(2, 16, 5), DrawnSamples(1, 17, 5), DrawnSamples(1, 16, 6), DrawnSamples(1, 16, 5, True)):
        assert not is_drawn(path, other)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"cut")])
def test_a_card_without_its_whole_file_is_not_enough(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "train.beton"
    samples = DrawnSamples(seed=1, size=16, num_samples=5)
    write_betons([(path, samples)], Encoding(), num_workers=1)
    assert callable(damage)
    damage(path)
    assert not is_drawn(path, samples)

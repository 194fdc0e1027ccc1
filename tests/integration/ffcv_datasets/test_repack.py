"""Copies of files by stock FFCV and by us, with levels, restart markers, checksums; files that are read through."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.beton_format import JPEG
from ffcv_datasets.card import card_path, read_card
from ffcv_datasets.crop import TrainView, boxes
from ffcv_datasets.decoder import Decoder
from ffcv_datasets.picture import Encoding
from ffcv_datasets.reading_cost import bytes_per_epoch, level_shares
from ffcv_datasets.repack import DamagedSamplesError, repack
from ffcv_datasets.staging import WriteError
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.verify import find_faults
from ffcv_datasets.write import write_betons
from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.ffcv_datasets.pictures import draw, jpeg, write_pictures


def all_crops(path: Path, resolution: int, rounds: int = 1) -> NDArray[np.uint8]:
    with Beton(path) as beton:
        samples = np.tile(np.arange(beton.num_samples), rounds)
        images = beton.images("image")
        where = boxes(
            TrainView(3, 0, resolution), np.arange(len(samples)), images.heights[samples], images.widths[samples]
        )
        out = np.empty((len(samples), resolution, resolution, 3), np.uint8)
        Decoder(2).decode(beton, samples, where, out, "image")
    return out


@pytest.mark.parametrize("name", ["jpg", "raw", "smart", "proportion"])
def test_a_file_by_stock_ffcv_keeps_every_pixel(stock_files: StockFiles, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy.beton"
    card = repack(stock_files[name], copy, restart=True, num_workers=2)
    assert card is not None
    assert (card.classes, card.jpeg_quality, card.has_checksums) == (None, None, True)
    assert read_card(copy) == card
    with Beton(stock_files[name]) as before, Beton(copy) as after:
        assert before.labels().tolist() == after.labels().tolist()
        assert before.images().mode.tolist() == after.images().mode.tolist()
        indexed = after.levels()[0]["index_size"] > 0
        assert indexed.tolist() == (after.images().mode == JPEG).tolist()
        assert card.num_indexed == indexed.sum()
        assert find_faults(after) == []
    for resolution in (24, 100, 200):
        assert (all_crops(stock_files[name], resolution, 20) == all_crops(copy, resolution, 20)).all()


def test_every_field_type_is_copied(stock_files: StockFiles, tmp_path: Path) -> None:
    copy = tmp_path / "copy.beton"
    repack(stock_files["fields"], copy, sides=(100,), restart=True)
    with Beton(stock_files["fields"]) as before, Beton(copy) as after:
        assert before.fields == after.fields
        for field, kind in before.fields.items():
            for sample in range(before.num_samples):
                one, other = before.value(field, sample), after.value(field, sample)
                if kind != "image":
                    assert np.array_equal(one, other) if kind in ("ndarray", "torch_tensor") else one == other
        assert find_faults(after) == []


def test_levels_and_markers_are_made_again_unless_told_otherwise(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.beton" for name in "abc")
    encoding = Encoding(further_sides=(40, 20), restart=True)
    write_betons([(first, DrawnSamples(seed=0, size=64, num_samples=24))], encoding, num_workers=1)
    card = repack(first, second)
    assert card is not None
    written = read_card(first)
    assert written is not None
    assert (card.recipe, card.classes, card.channel_mean) == (written.recipe, written.classes, written.channel_mean)
    assert [level.max_side for level in card.further_levels] == [40, 20]
    assert card.num_indexed == 24
    assert (card.image_bytes, card.index_bytes) == (written.image_bytes, written.index_bytes)
    without = repack(second, third, sides=(64, 30))  # no image is larger than 64
    assert without is not None
    assert [(level.max_side, level.num_images) for level in without.further_levels] == [(30, 24)]
    assert (all_crops(first, 50) == all_crops(third, 50)).all()


def test_what_cannot_be_read_is_listed_and_nothing_is_kept(tmp_path: Path) -> None:
    good = jpeg(draw(60, 50))
    path = write_pictures(tmp_path / "a.beton", [(good, 60, 50), (good[:300], 60, 50), (good, 60, 51), (b"", 60, 50)])
    with pytest.raises(DamagedSamplesError, match=r"a\.beton: 3 samples are damaged") as raised:
        repack(path, tmp_path / "b.beton")
    assert [sample.name for sample in raised.value.samples] == ["sample 1", "sample 2", "sample 3"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.beton"]


def test_a_target_is_replaced_only_by_force(stock_files: StockFiles, tmp_path: Path) -> None:
    copy = tmp_path / "copy.beton"
    copy.write_bytes(b"precious")
    with pytest.raises(WriteError, match="exists already"):
        repack(stock_files["jpg"], copy)
    repack(stock_files["jpg"], copy, force=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.beton", card_path(copy).name]
    repack(copy, copy, sides=(128,), force=True)  # onto itself
    with Beton(copy) as beton:
        assert find_faults(beton) == []


def test_every_kind_of_damage_is_found_with_its_sample(tmp_path: Path) -> None:
    good = jpeg(draw(60, 50))
    path = write_pictures(
        tmp_path / "a.beton",
        [(good, 60, 50), (b"", 60, 50), (good[:-200], 60, 50), (good, 60, 51), (bytes(8000), 60, 50), (good, 60, 50)],
    )
    done: list[int] = []
    with Beton(path) as beton:
        faults = find_faults(beton, num_threads=2, on_progress=lambda count, total: done.append(count))
    assert [fault.sample for fault in faults] == [1, 2, 3, 4]
    assert "51 x 60" in str(faults[2])
    assert done == [6]


def test_a_flipped_bit_of_raw_pixels_and_of_a_level_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    encoding = Encoding(further_sides=(40,), restart=True, share_jpeg=0.5)
    write_betons([(path, DrawnSamples(seed=0, size=64, num_samples=8))], encoding, num_workers=1)
    with Beton(path) as beton:
        assert find_faults(beton) == []
        places = [int(beton.images().offsets[0]) + 99, int(beton.levels()[1]["offset"][5]) + 500]
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 4
    path.write_bytes(content)
    with Beton(path) as beton:
        faults = find_faults(beton)
    assert [(fault.sample, fault.level) for fault in faults] == [(0, 0), (5, 1)]
    assert str(faults[1]).startswith("sample 5, image, level 1: its bytes are not those")


def test_the_card_tells_what_an_epoch_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    encoding = Encoding(further_sides=(100, 50), restart=True)
    write_betons([(path, DrawnSamples(seed=0, size=160, num_samples=100))], encoding, num_workers=1)
    card = read_card(path)
    assert card is not None
    for resolution in (16, 32, 48, 64, 96, 128):
        with Beton(path) as beton:
            samples = np.tile(np.arange(100), 10)
            view = TrainView(0, 0, resolution)
            where = boxes(view, np.arange(1000), beton.heights()[samples], beton.widths()[samples])
            chosen = Decoder().levels_read(beton, samples, where, resolution, resolution)
            sizes = np.stack([level["size"] + level["index_size"] for level in beton.levels()])[chosen, samples]
        shares = level_shares(card, resolution)
        assert sum(shares) == pytest.approx(1)
        assert shares == pytest.approx(np.bincount(chosen, minlength=3) / 1000, abs=0.06)
        assert bytes_per_epoch(card, resolution) == pytest.approx(sizes.sum() / 10, rel=0.05)
    assert level_shares(card, 32, crop_scale=(1.0, 1.0)) == (0.0, 0.0, 1.0)
    assert bytes_per_epoch(card.model_copy(update={"image_bytes": None}), 32) is None


def test_four_inks_pass_through_as_they_are(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(draw(60, 50)).convert("CMYK").save(buffer, "JPEG")
    path = write_pictures(tmp_path / "a.beton", [(buffer.getvalue(), 60, 50)])
    repack(path, tmp_path / "b.beton", sides=(30,), restart=True)
    with Beton(tmp_path / "b.beton") as beton:
        assert beton.image_bytes(0) == buffer.getvalue()
        assert find_faults(beton) == []

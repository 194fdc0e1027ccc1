import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ffcv_datasets.beton import Beton, BetonError
from ffcv_datasets.beton_format import JPEG, RAW
from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.ffcv_datasets.pictures import draw, jpeg, write_pictures


@pytest.mark.parametrize("mode", ["jpg", "raw", "proportion", "smart"])
def test_tables_of_a_file_by_stock_ffcv(stock_files: StockFiles, mode: str) -> None:
    with Beton(stock_files[mode]) as beton:
        assert beton.fields == {"image": "image", "label": "int"}
        assert beton.num_samples == len(stock_files.pictures)
        assert beton.labels().tolist() == [7 * i - 3 for i in range(beton.num_samples)]
        assert beton.heights().tolist() == [picture.shape[0] for picture in stock_files.pictures]
        assert beton.widths().tolist() == [picture.shape[1] for picture in stock_files.pictures]
        assert set(beton.images().mode) == {"jpg": {JPEG}, "raw": {RAW}}.get(mode, {JPEG, RAW})


def test_stored_bytes_of_a_file_by_stock_ffcv(stock_files: StockFiles) -> None:
    with Beton(stock_files["smart"]) as beton:
        for sample, picture in enumerate(stock_files.pictures):
            stored = beton.image_bytes(sample)
            if beton.images().mode[sample] == RAW:
                assert stored == picture.tobytes()
            else:
                assert (stored[:2], stored[-2:]) == (b"\xff\xd8", b"\xff\xd9")


def test_every_field_type_of_ffcv(stock_files: StockFiles) -> None:
    with Beton(stock_files["fields"]) as beton:
        assert list(beton.fields.values()) == ["int", "float", "bytes", "image", "ndarray", "json", "torch_tensor"]
        assert beton.column("score").tolist() == [i / 2 for i in range(beton.num_samples)]
        for i in range(beton.num_samples):
            assert (beton.value("id", i), beton.value("score", i)) == (i, i / 2)
            assert beton.value("text", i) == bytes(range(i + 1))
            assert beton.value("facts", i) == {"a": [i, "b"]}
            assert beton.value("box", i).tolist() == [[i] * 3] * 2
            assert beton.value("tensor", i).tolist() == [i, i + 1, i + 2, i + 3]
            assert beton.value("tensor", i).dtype == np.int16
            assert beton.value("image", i) == beton.image_bytes(i)


def test_several_or_no_fields_of_a_type_are_named_in_the_error(stock_files: StockFiles) -> None:
    with Beton(stock_files["jpg"]) as beton, pytest.raises(BetonError, match=r"0 fields of type json.*label \(int\)"):
        beton.only("json")


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BetonError(Path("a.beton"), "is odd")))
    assert str(error) == "a.beton: is odd"


@pytest.mark.parametrize("share", [0.999999, 0.9, 0.5, 0.01, 0.00001, 0])
def test_a_cut_file_is_refused_when_opened(stock_files: StockFiles, tmp_path: Path, share: float) -> None:
    whole = stock_files["jpg"].read_bytes()
    cut = tmp_path / "cut.beton"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BetonError, match=r"cut\.beton: is incomplete"):
        Beton(cut)


def test_a_lost_row_of_the_allocation_table_is_noticed(stock_files: StockFiles, tmp_path: Path) -> None:
    cut = tmp_path / "cut.beton"
    cut.write_bytes(stock_files["jpg"].read_bytes()[:-24])
    with pytest.raises(BetonError, match="incomplete"):
        Beton(cut)


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.beton"
    other.write_bytes(b"PK\x03\x04" + bytes(5000))
    with pytest.raises(BetonError, match=r"not a \.beton file of version 2"):
        Beton(other)
    with pytest.raises(FileNotFoundError):
        Beton(tmp_path / "none.beton")


def test_damaged_tables_give_an_error_or_other_values_but_no_crash(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.beton", [(jpeg(draw(8, 9)), 8, 9)])
    whole = path.read_bytes()
    tables = [*range(24 + 2 * 1041 + 24), *range(len(whole) - 24, len(whole))]
    refused = 0
    with open(path, "r+b") as file:
        for offset in tables:
            os.pwrite(file.fileno(), b"\xff" if whole[offset] != 0xFF else b"\x00", offset)
            try:
                Beton(path).close()
            except BetonError as error:
                refused += "a.beton" in str(error)
            os.pwrite(file.fileno(), whole[offset : offset + 1], offset)
    assert refused > 30
    Beton(path).close()


def test_a_file_that_shrinks_while_open_gives_an_error(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.beton", [(jpeg(draw(8, 9)), 8, 9)])
    with Beton(path) as beton:
        os.truncate(path, 100)
        with pytest.raises(BetonError, match="cut after it had been opened"):
            beton.image_bytes(0)

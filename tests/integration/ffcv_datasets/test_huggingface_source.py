"""Hugging Face data sets, as their library saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import Card
from ffcv_datasets.picture import Encoding
from ffcv_datasets.samples import SourceError
from ffcv_datasets.sources import open_source
from ffcv_datasets.targets import encode_mask, read_mask
from ffcv_datasets.write import BadImagesError, write_betons
from tests.integration.ffcv_datasets.pictures import draw, jpeg

datasets = pytest.importorskip("datasets", reason="Hugging Face sources were NOT tested: pip install datasets")

PICTURES = [jpeg(draw(20 + index, 30, index)) for index in range(6)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(labels: list[Any], feature: Any, **more: Any) -> Any:
    """A table of pictures."""
    columns = {"picture": [{"bytes": data, "path": None} for data in PICTURES], "kind": labels, **more}
    features = {"picture": datasets.Image(), "kind": feature, **{name: datasets.Image() for name in more}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def classes_table() -> Any:
    return table([0, 1, 2, 0, 1, 2], datasets.ClassLabel(names=["cat", "dog", "cow"]))


def write(out: Path, source: Path, **settings: str) -> list[Card]:
    splits = open_source(f"huggingface:{source}", settings)
    parts = [(out.with_name(f"{out.stem}{name}.beton"), samples) for name, samples in splits.items()]
    cards = [written.card for written in write_betons(parts, Encoding(), num_workers=1)]
    return [card for card in cards if card]


def test_jpeg_bytes_and_names_of_classes_are_kept(tmp_path: Path) -> None:
    classes_table().save_to_disk(tmp_path / "pets")
    (card,) = write(tmp_path / "x.beton", tmp_path / "pets")
    assert (card.source, card.classes, card.num_kept) == ("pets", ("cat", "dog", "cow"), 6)
    with Beton(tmp_path / "x.beton") as beton:
        assert beton.labels().tolist() == [0, 1, 2, 0, 1, 2]
        assert [beton.image_bytes(sample) for sample in range(6)] == PICTURES


def test_both_splits_are_written_and_one_can_be_chosen(tmp_path: Path) -> None:
    whole = classes_table()
    splits = {"train": whole, "validation": whole.select([5]), "extra": whole.select([0, 1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "pets")
    assert [card.num_samples for card in write(tmp_path / "x.beton", tmp_path / "pets")] == [6, 1]
    assert [card.num_samples for card in write(tmp_path / "y.beton", tmp_path / "pets", split="extra")] == [2]


def test_parquet_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    classes_table().to_parquet(tmp_path / "pets" / "train-00000.parquet")
    for source in (tmp_path / "pets", tmp_path / "pets" / "train-00000.parquet"):
        out = tmp_path / f"{source.stem}.beton"
        (card,) = write(out, source)
        assert card.classes == ("cat", "dog", "cow")
        with Beton(out) as beton:
            assert [beton.image_bytes(sample) for sample in range(6)] == PICTURES


def test_a_folder_of_images_with_metadata_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "train"
    folder.mkdir(parents=True)
    lines = []
    for index, data in enumerate(PICTURES):
        (folder / f"{index}.jpg").write_bytes(data)
        lines.append(json.dumps({"file_name": f"{index}.jpg", "species": "dog" if index % 2 else "cat"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (card,) = write(tmp_path / "x.beton", tmp_path / "pets", label="species")
    assert (card.classes, card.samples_per_class, card.num_kept) == (("cat", "dog"), (3, 3), 6)


def test_labels_may_be_numbers_or_texts(tmp_path: Path) -> None:
    table([4, 0, 2, 2, 2, 2], datasets.Value("int64")).save_to_disk(tmp_path / "numbers")
    (card,) = write(tmp_path / "n.beton", tmp_path / "numbers", label="kind")
    assert card.classes is None
    with Beton(tmp_path / "n.beton") as beton:
        assert beton.labels().tolist() == [4, 0, 2, 2, 2, 2]
    table(list("bababa"), datasets.Value("string")).save_to_disk(tmp_path / "texts")
    (card,) = write(tmp_path / "t.beton", tmp_path / "texts", label="kind", image="picture")
    assert card.samples_per_class == (3, 3)
    with Beton(tmp_path / "t.beton") as beton:
        assert beton.labels().tolist() == [1, 0, 1, 0, 1, 0]


def test_masks_are_a_column_too(tmp_path: Path) -> None:
    masks = [np.full((20 + index, 30), index, np.uint8) for index in range(6)]
    content = [{"bytes": encode_mask(mask), "path": None} for mask in masks]
    table([0] * 6, datasets.Value("int64"), mask=content).save_to_disk(tmp_path / "street")
    (card,) = write(tmp_path / "x.beton", tmp_path / "street", image="picture", mask="mask")
    assert card.fields == ("image", "mask")
    with Beton(tmp_path / "x.beton") as beton:
        assert all((read_mask(beton, sample) == mask).all() for sample, mask in enumerate(masks))


def test_an_unreadable_picture_is_named_by_its_row(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": b"?", "path": None}, {"bytes": PICTURES[0], "path": None}], "label": [0, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "pets")
    with pytest.raises(BadImagesError) as caught:
        write(tmp_path / "x.beton", tmp_path / "pets")
    assert str(caught.value.images[0]).startswith("pets, row 0: not an image of a known kind")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"label": "species"}, "has no column 'species'; its columns: picture, kind"),
        ({"image": "photo", "label": "kind"}, "has no column 'photo'"),
        ({"split": "train"}, "has no split 'train'"),
        ({"columns": "x"}, "takes no columns=..."),
        ({"label": "kind", "classes": "/nowhere/names.txt"}, "the names of the classes cannot be read"),
        ({}, "has 0 columns of classes; name one by label="),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    table([0] * 6, datasets.Value("int64")).save_to_disk(tmp_path / "pets")
    with pytest.raises(SourceError, match=sentence):
        open_source(f"huggingface:{tmp_path}/pets", settings)


def test_what_is_no_data_set_on_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such folder; only data sets that are on disk"):
        open_source("huggingface:beans", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: cannot be opened: "):
        open_source(f"huggingface:{tmp_path}/empty", {})


def test_labels_out_of_range_are_told(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    table([0, 1, 2, 0, 0, 0], datasets.Value("int64")).save_to_disk(tmp_path / "pets")
    with pytest.raises(SourceError, match=r"pets, row 2: the label 2 is not in 0 \.\. 1"):
        write(tmp_path / "x.beton", tmp_path / "pets", label="kind", classes=str(tmp_path / "names.txt"))


def test_pictures_are_not_decoded_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes_table().save_to_disk(tmp_path / "pets")
    samples = open_source(f"huggingface:{tmp_path}/pets", {})[""]
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("decoded"))
    assert samples.item(3).name == "pets, row 3"

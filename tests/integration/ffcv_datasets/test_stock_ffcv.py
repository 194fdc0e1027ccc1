"""Stock FFCV reads what is written here, and itself writes the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.class_tree import list_class_tree
from ffcv_datasets.picture import Encoding
from ffcv_datasets.write import write_betons
from tests.integration.ffcv_datasets.pictures import draw

NUM_SAMPLES = 11
SIDE = 800  # four raw pictures fill a page, so the data take three

# In a process of its own: FFCV's import takes seconds, its writer forks, and both warn.
_STOCK = """
import sys
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from PIL import Image

folder = sys.argv[1]
paths = sys.argv[2:]

class Files:
    def __len__(self): return len(paths)
    def __getitem__(self, i): return Image.open(paths[i]), "ab".index(paths[i].split("/")[-2])

fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
DatasetWriter(f"{folder}/stock.beton", fields, num_workers=1).from_indexed_dataset(Files())

reader = Reader(f"{folder}/mixed.beton")
order = {"order": OrderOption.SEQUENTIAL, "drop_last": False}
def read(name, **options):
    pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
    loader = Loader(f"{folder}/{name}.beton", 4, num_workers=1, pipelines=pipelines, **order, **options)
    return [(images.copy(), labels.copy()) for images, labels in loader]
batches = read("mixed")
np.savez(
    f"{folder}/read.npz",
    types=[type(handler).__name__ for handler in reader.handlers.values()],
    names=reader.field_names,
    metadata=reader.metadata,
    allocations=reader.alloc_table,
    images=np.concatenate([images for images, _ in batches]),
    labels=np.concatenate([labels for _, labels in batches])[:, 0],
    mapped=np.concatenate([images for images, _ in read("levels")]),
    paged=np.concatenate([images for images, _ in read("levels", os_cache=False)]),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tree/, raw, mixed and levels.beton by us; stock.beton by FFCV; read.npz: what FFCV reads in ours."""
    folder = tmp_path_factory.mktemp("stock")
    for index in range(NUM_SAMPLES):
        path = folder / "tree" / "ab"[index % 2] / f"{index:02}.{'jpg' if index < 6 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(SIDE, SIDE, index)).save(path, quality=95)
    tree = list_class_tree(folder / "tree")
    encodings = {
        "raw": Encoding(share_jpeg=0),
        "mixed": Encoding(share_jpeg=0.7),
        "levels": Encoding(share_jpeg=0.7, further_sides=(400, 128), restart=True),
    }
    for name, encoding in encodings.items():
        write_betons([(folder / f"{name}.beton", tree)], encoding, num_workers=2)
    command = [sys.executable, "-c", _STOCK, str(folder), *(str(tree.root / file) for file in tree.files)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return folder


def test_stock_ffcv_writes_the_same_bytes_with_one_process_but_for_what_it_never_reads(folder: Path) -> None:
    ours, stock = bytearray((folder / "raw.beton").read_bytes()), bytearray((folder / "stock.beton").read_bytes())
    table_bytes = 24 * NUM_SAMPLES
    pages_end = len(stock) - table_bytes
    assert ours[-table_bytes:] == stock[-table_bytes:]
    allocations_at = slice(16, 24)
    ours[allocations_at] = stock[allocations_at]
    assert ours[:pages_end] == stock[:pages_end]


def test_stock_ffcv_reads_every_sample(folder: Path) -> None:
    tree = list_class_tree(folder / "tree")
    read = np.load(folder / "read.npz")
    assert dict(zip(read["names"].tolist(), read["types"].tolist(), strict=True)) == {
        "image": "RGBImageField",
        "label": "IntField",
    }
    assert read["labels"].tolist() == tree.labels.tolist()
    is_raw = read["metadata"]["f0"]["mode"] == 1
    assert is_raw.sum() == 4
    for sample, file in enumerate(tree.files):
        with Image.open(tree.root / file) as image:
            error = np.abs(read["images"][sample].astype(int) - np.asarray(image))
        # FFCV decodes by the fast DCT, which is a level or two off; compressing takes more.
        assert error.mean() < (0.01 if is_raw[sample] else 2 if file.endswith(".jpg") else 5), file


def test_stock_ffcv_finds_kept_jpeg_files_byte_for_byte(folder: Path) -> None:
    tree = list_class_tree(folder / "tree")
    read = np.load(folder / "read.npz")
    content = (folder / "mixed.beton").read_bytes()
    num_kept = 0
    for file, row, allocation in zip(tree.files, read["metadata"]["f0"], read["allocations"], strict=True):
        stored = content[int(allocation["ptr"]) : int(allocation["ptr"] + allocation["size"])]
        assert row["data_ptr"] == allocation["ptr"]
        if file.endswith(".jpg") and row["mode"] == 0:
            assert stored == (tree.root / file).read_bytes()
            num_kept += 1
    assert num_kept == 4


def test_stock_ffcv_sees_neither_levels_nor_restart_markers(folder: Path) -> None:
    read = np.load(folder / "read.npz")
    assert (read["mapped"] == read["images"]).all()
    assert (read["paged"] == read["images"]).all()

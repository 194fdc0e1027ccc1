"""Files written by stock FFCV."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.integration.ffcv_datasets.pictures import draw

SIZES = [(375, 500), (333, 250), (64, 48), (17, 33), (1, 1), (3, 200), (160, 160), (96, 128), (40, 41), (500, 375)]

# In a process of its own: FFCV's import takes seconds, its writer forks, and both warn.
_STOCK_WRITER = """
import sys
import numpy as np, torch
from ffcv.fields import BytesField, FloatField, IntField, JSONField, NDArrayField, RGBImageField, TorchTensorField
from ffcv.writer import DatasetWriter

folder = sys.argv[1]
pictures = np.load(f"{folder}/pictures.npz")
pictures = [pictures[f"arr_{i}"] for i in range(len(pictures.files))]

class Samples:
    def __init__(self, sample): self.sample = sample
    def __len__(self): return len(pictures)
    def __getitem__(self, i): return self.sample(i)

def write(name, fields, sample):
    DatasetWriter(f"{folder}/{name}.beton", fields, num_workers=2).from_indexed_dataset(Samples(sample), chunksize=3)

np.random.seed(0)
for mode, options in {
    "jpg": {}, "raw": {}, "proportion": {"compress_probability": 0.5}, "smart": {"smart_threshold": 50_000}
}.items():
    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=90, **options), "label": IntField()}
    write(mode, fields, lambda i: (pictures[i], 7 * i - 3))
write("fields", {
    "id": IntField(), "score": FloatField(), "text": BytesField(), "image": RGBImageField(write_mode="jpg"),
    "box": NDArrayField(np.dtype("<f4"), (2, 3)), "facts": JSONField(), "tensor": TorchTensorField(torch.int16, (4,)),
}, lambda i: (i, i / 2, np.arange(i + 1, dtype=np.uint8), pictures[i], np.full((2, 3), i, "<f4"), {"a": [int(i), "b"]},
              torch.arange(i, i + 4, dtype=torch.int16)))
"""


@dataclass(frozen=True)
class StockFiles:
    """jpg, raw, proportion, smart and fields .beton in a folder, and the pictures they were written from."""

    folder: Path
    pictures: list[NDArray[np.uint8]]

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.beton"


@pytest.fixture(scope="session")
def stock_files(tmp_path_factory: pytest.TempPathFactory) -> StockFiles:
    folder = tmp_path_factory.mktemp("stock")
    pictures = [draw(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    np.savez(folder / "pictures.npz", *pictures)
    # Should its writer lose a process it would wait for ever.
    subprocess.run([sys.executable, "-c", _STOCK_WRITER, str(folder)], check=True, capture_output=True, timeout=120)
    return StockFiles(folder, pictures)

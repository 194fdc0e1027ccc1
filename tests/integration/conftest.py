"""A small drawn data set for all integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.beton (250 samples, so that batches leave a tail) and val.beton (57), 12 classes, 24 px."""
    folder = tmp_path_factory.mktemp("drawn")
    parts = [
        (folder / "train.beton", DrawnSamples(seed=0, size=24, num_samples=250)),
        (folder / "val.beton", DrawnSamples(seed=0, size=24, num_samples=57, validation=True)),
    ]
    write_betons(parts, Encoding(), num_workers=2)
    return folder

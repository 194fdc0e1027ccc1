"""Pictures, the ways to compress them, and .beton files that hold any bytes a test wants in one."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton_writer import BetonWriter
from ffcv_datasets.picture import StoredPicture


def draw(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with smooth colours, hard edges and a little noise, (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (5 + seed % 7) + c) + np.cos(y / (9 - seed % 5) - c * x / 40) for c in range(3)]
    edges = 60 * ((x // 13 + y // 17 + seed) % 2)[..., None]
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    levels: NDArray[np.float64] = 100 + 40 * np.stack(waves, -1) + edges + noise
    return levels.clip(0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def write_pictures(path: Path, pictures: Sequence[tuple[bytes, int, int]]) -> Path:
    """Write (bytes, height, width), labelled 0, 1, ..; as raw pixels where the bytes are that many."""
    with open(path, "wb") as file:
        writer = BetonWriter(file, capacity=len(pictures))
        for label, (data, height, width) in enumerate(pictures):
            picture = StoredPicture(
                data=data,
                is_jpeg=len(data) != 3 * height * width,
                is_kept=True,
                width=width,
                height=height,
                histogram=np.zeros((3, 256), np.int64),
            )
            writer.add({"image": picture, "label": label})
        writer.finish()
    return path

"""Writes inputs for decode_fuzzer.c: one of each kind of JPEG file and raw image, or damaged copies of them.

python tests/fuzz/seeds.py FOLDER [--damaged NUMBER]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets._decode import _core

FLIP, RAW, GIVEN_SIZE, SUM, TRANSCODE = 1, 2, 4, 8, 16


def control(
    out: tuple[int, int] = (7, 9),
    *,
    flags: int = 0,
    box: tuple[int, int, int, int] = (0, 0, 255, 255),
    level: int = 1,
    index_size: int = 0,
    size: tuple[int, int] = (0, 0),
) -> bytes:
    """The bytes before an input's stored ones: struct control in decode_fuzzer.c."""
    sides = np.array([index_size, *size, 0], "<u2").tobytes()
    return bytes([*out, flags, *box, level]) + sides


def picture(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([5 * x % 256, 3 * y % 256, (x * y) % 256], -1).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 60} | options)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    small, odd = picture(48, 64), picture(37, 53)
    files = {
        "444": jpeg(small, subsampling=0),
        "422": jpeg(small, subsampling=1),
        "420": jpeg(odd, subsampling=2),
        "grey": jpeg(odd, "L"),
        "cmyk": jpeg(small, "CMYK"),
        "progressive": jpeg(small, progressive=True),
        "restarts": jpeg(small, restart_marker_blocks=2),
        "one": jpeg(picture(1, 1)),
    }
    inputs = {}
    for name, data in files.items():
        inputs[name] = control(flags=TRANSCODE) + data
        inputs[f"{name}-region"] = control((5, 4), flags=FLIP | SUM, box=(90, 60, 99, 180)) + data
        inputs[f"{name}-scaled"] = control((2, 3), level=2) + data
    for name in ("444", "420", "grey"):
        data, index = _core.add_restarts(files[name])
        inputs[f"{name}-index"] = control((6, 6), box=(80, 80, 90, 90), index_size=len(index)) + data + index
    inputs["raw"] = control(flags=RAW | GIVEN_SIZE | FLIP, box=(9, 9, 99, 99), size=odd.shape[:2]) + odd.tobytes()
    return inputs


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Cut, or with some bytes or a stretch of them changed."""
    damaged: NDArray[np.uint8] = np.frombuffer(data, np.uint8).copy()
    kind = generator.integers(4)
    if kind == 0:
        return data[: int(generator.integers(len(data)))]
    if kind == 1:
        start = generator.integers(len(data))
        damaged[start : start + generator.integers(1, 64)] = generator.integers(256)
    else:
        places = generator.integers(0, len(data), generator.integers(1, 9 if kind == 2 else 100))
        damaged[places] = generator.integers(0, 256, len(places))
    return damaged.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--damaged", type=int, default=0)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    inputs = seeds()
    for name, data in inputs.items():
        (chosen.folder / name).write_bytes(data)
    generator = np.random.default_rng(0)
    originals = list(inputs.values())
    for number in range(chosen.damaged):
        data = damage(originals[number % len(originals)], generator)
        (chosen.folder / f"damaged-{number}").write_bytes(data)


if __name__ == "__main__":
    main()

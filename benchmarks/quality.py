"""How true our pixels are: PSNR and bias against a full decode that is resampled in double precision.

    python benchmarks/quality.py FILE.beton [--levels FILE-WITH-LEVELS.beton] [--sizes 96,128,160,224]

One line per size, level and DCT scale. FILE's full decode is the reference for both files.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import Boxes, TrainView, boxes
from ffcv_datasets.decoder import Decoder

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Of all crops of one kind, in grey levels of 0..255."""

    size: int
    level: int
    """Which of the images stored for a sample was read; 0 is the largest."""
    scale: str
    """1/8, 2/8, 4/8 or 8/8: the smallest DCT scale at which the crop still covers the output; or `enlarged`."""
    crops: int
    psnr_db: float
    """Mean over the crops."""
    worst_db: float
    bias: tuple[float, float, float]
    """Mean difference from the reference, for R, G and B."""


def axis_weights(length: int, out: int) -> Plane:
    """(out, length): shares of the source pixels in each output pixel; by area, or bilinear where it enlarges."""
    step = length / out
    if step >= 1:
        first, last = np.arange(out)[:, None] * step, np.arange(1, out + 1)[:, None] * step
        pixels = np.arange(length)
        shares: Plane = np.clip(np.minimum(last, pixels + 1) - np.maximum(first, pixels), 0, None) / step
        return shares
    centres = np.clip((np.arange(out) + 0.5) * step - 0.5, 0, length - 1)
    nearness: Plane = np.clip(1 - abs(centres[:, None] - np.arange(length)), 0, None)
    return nearness


def reference(pixels: NDArray[np.uint8], top: int, left: int, height: int, width: int, size: int) -> Plane:
    """The box of `pixels` (H, W, 3), resampled to (size, size, 3) in double precision."""
    box = pixels[top : top + height, left : left + width].astype(np.float64)
    resampled: Plane = np.einsum(
        "oh,hwc,pw->opc", axis_weights(height, size), box, axis_weights(width, size), optimize=True
    )
    return resampled


def dct_scale(height: float, width: float, size: int) -> str:
    """The scale that a box of that height and width, in what is stored, allows."""
    if min(height, width) < size:
        return "enlarged"
    return f"{next(m for m in (1, 2, 4, 8) if min(height, width) * m >= 8 * size)}/8"


def compare(
    beton: Beton, full: Sequence[NDArray[np.uint8]], samples: NDArray[np.int64], where: Boxes, size: int
) -> Iterator[tuple[tuple[int, str], Plane]]:
    """For each sample its level and DCT scale, and our pixels less the reference's (size, size, 3)."""
    ours = np.empty((len(samples), size, size, 3), np.uint8)
    Decoder().decode(beton, samples, where, ours)
    levels = Decoder.levels_read(beton, samples, where, size, size)
    for i, sample in enumerate(samples):
        box = (int(where.top[i]), int(where.left[i]), int(where.height[i]), int(where.width[i]))
        right = reference(full[sample], *box, size)
        stored = beton.levels()[levels[i]][sample]
        shrunk = int(stored["height"]) / int(beton.heights()[sample])
        kind = int(levels[i]), dct_scale(shrunk * box[2], shrunk * box[3], size)
        yield kind, ours[i, :, :: -1 if where.flip[i] else 1] - right


def measure(beton: Beton, full: Sequence[NDArray[np.uint8]], sizes: Sequence[int], epochs: int) -> list[Quality]:
    """Random training crops of all samples."""
    samples = np.arange(beton.num_samples)
    rows = []
    for size in sizes:
        found: dict[tuple[int, str], list[Plane]] = defaultdict(list)
        for epoch in range(epochs):
            where = boxes(TrainView(0, epoch, size), samples, beton.heights(), beton.widths())
            for kind, difference in compare(beton, full, samples, where, size):
                found[kind].append(difference)
        rows += [summarise(size, *kind, differences) for kind, differences in sorted(found.items())]
    return rows


def summarise(size: int, level: int, scale: str, differences: Sequence[Plane]) -> Quality:
    errors = [10 * np.log10(255**2 / max(float((difference**2).mean()), 1e-9)) for difference in differences]
    red, green, blue = np.mean([difference.mean((0, 1)) for difference in differences], axis=0)
    bias = (float(red), float(green), float(blue))
    return Quality(size, level, scale, len(errors), float(np.mean(errors)), float(min(errors)), bias)


def full_decode(beton: Beton) -> list[NDArray[np.uint8]]:
    """Every image (H, W, 3) as PIL decodes it: accurate DCT, fancy upsampling."""
    return [
        np.asarray(Image.open(io.BytesIO(beton.image_bytes(sample))).convert("RGB"))
        for sample in range(beton.num_samples)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--levels", type=Path)
    parser.add_argument("--sizes", default="96,128,160,224")
    parser.add_argument("--epochs", type=int, default=2)
    chosen = parser.parse_args()
    sizes = [int(size) for size in chosen.sizes.split(",")]
    with Beton(chosen.file) as beton:
        full = full_decode(beton)
    print(f"{'file':<10}{'px':>5}{'level':>7}  {'DCT scale':<10}{'crops':>6}{'PSNR dB':>9}{'worst':>8}   bias R, G, B")
    for name, path in (("plain", chosen.file), ("levels", chosen.levels)):
        if path is not None:
            with Beton(path) as beton:
                for row in measure(beton, full, sizes, chosen.epochs):
                    bias = " ".join(f"{channel:+.2f}" for channel in row.bias)
                    head = f"{name:<10}{row.size:>5}{row.level:>7}  {row.scale:<10}{row.crops:>6}"
                    print(f"{head}{row.psnr_db:>9.1f}{row.worst_db:>8.1f}   {bias}")


if __name__ == "__main__":
    main()

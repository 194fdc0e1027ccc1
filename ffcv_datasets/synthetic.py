"""Draws data sets on which resolution matters: a class is a coarse shape filled with a fine texture.

At a quarter of the drawn size an area filter averages the texture away and leaves the shape, so that a model trained
there cannot tell more classes apart than there are shapes. Everything else (colours, place, size, turn, gradient,
noise) is random and tells nothing about the class; every texture has the same mean and the same contrast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffcv_datasets.beton_writer import PICTURE_AND_LABEL, Layout
from ffcv_datasets.card import read_card
from ffcv_datasets.picture import Encoding, store_rgb
from ffcv_datasets.samples import StoredSample

Plane = NDArray[np.floating[Any]]

_DRAWING = 1
"""Changes whenever the same numbers would draw another picture."""
_VALIDATION = 1 << 32
"""Index of the first validation sample: no training set reaches it, so the two never share a picture."""

_PERIOD_PX = (3.3, 3.7)
_CONTRAST = 30.0
_NOISE = 20.0
_STREAK_PX = 4
_STREAKS = 12.0


def _disc(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y) - 0.95


def _square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) * 0.87 - y * 0.5, y) - 0.6


def _cross(x: Plane, y: Plane) -> Plane:
    x, y = np.abs(x), np.abs(y)
    inside: Plane = np.maximum(np.minimum(x, y) - 0.34, np.maximum(x, y) - 1)
    return inside


def _rows(across: Plane, down: Plane) -> Plane:
    return np.broadcast_to(np.sin(down), (down.size, across.size))


def _columns(across: Plane, down: Plane) -> Plane:
    return np.broadcast_to(np.sin(across), (down.size, across.size))


def _checks(across: Plane, down: Plane) -> Plane:
    return np.sin(across) * np.sin(down) * math.sqrt(2)


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
"""Signed distance to the outline, negative inside, of (x, y) in units of the shape's radius."""
TEXTURES: dict[str, Callable[[Plane, Plane], Plane]] = {"rows": _rows, "columns": _columns, "checks": _checks}
"""Brightness of (phase across (1, W), phase down (H, 1)) in radians: mean 0, mean square 1/2, mirrors into itself."""
CLASSES = tuple(f"{shape}-{texture}" for shape in SHAPES for texture in TEXTURES)


def draw_image(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """The picture (size, size, 3) and the label of one sample; the labels take turns."""
    label = index % len(CLASSES)
    shape, texture = CLASSES[label].split("-")
    generator = np.random.default_rng((seed, index))
    places = np.arange(size, dtype=np.float32) + 0.5
    column, row = places[None, :], places[:, None]

    cover = _cover(generator, SHAPES[shape], column, row)
    ground, ink = _colours(generator)
    frequency = 2 * math.pi / generator.uniform(*_PERIOD_PX)
    across, down = generator.uniform(0, 2 * math.pi, 2).astype(np.float32)
    filling = _CONTRAST * TEXTURES[texture](column * frequency + across, row * frequency + down)
    light = _streaks(generator, size)[None, :] + _streaks(generator, size)[:, None] + cover * filling

    pixels = _NOISE * generator.standard_normal((size, size, 3), np.float32)
    pixels += ground + cover[..., None] * (ink - ground) + light[..., None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), label


def _cover(
    generator: np.random.Generator, outline: Callable[[Plane, Plane], Plane], column: Plane, row: Plane
) -> Plane:
    """(size, size): 1 inside a shape of random place, radius and turn, 0 outside, soft over one pixel."""
    size = column.size
    radius = generator.uniform(0.28, 0.4) * size
    x = (column - generator.uniform(0.4, 0.6) * size) / radius
    y = (row - generator.uniform(0.4, 0.6) * size) / radius
    turn = generator.uniform(-0.3, 0.3)
    sine, cosine = math.sin(turn), math.cos(turn)
    distance = radius * outline(x * cosine + y * sine, y * cosine - x * sine)
    cover: Plane = np.clip(0.5 - distance, 0, 1)
    return cover


def _colours(generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two colours (3,) that differ enough in brightness, and leave room for texture and noise."""
    ground, ink = generator.uniform(75, 180, (2, 3)).astype(np.float32)
    gap = float(ink.mean() - ground.mean())
    push = math.copysign(max(0.0, 30 - abs(gap)) / 2, gap)
    return ground - push, ink + push


def _streaks(generator: np.random.Generator, size: int) -> Plane:
    """(size,): a step every few pixels. They hide what aliasing leaves of a texture at small sizes."""
    steps = generator.standard_normal(-(-size // _STREAK_PX), np.float32)
    return np.repeat(steps * generator.uniform(0, _STREAKS), _STREAK_PX)[:size]


@dataclass(frozen=True)
class Drawing:
    """A picture that `draw_image` is to make."""

    seed: int
    index: int
    size: int

    @property
    def name(self) -> str:
        return f"drawing {self.index}"

    def identity(self) -> str:
        return f"{_DRAWING} {self}"

    def store(self, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        pixels, label = draw_image(self.seed, self.index, self.size)
        picture = store_rgb(Image.fromarray(pixels), encoding, as_jpeg=as_jpeg)
        return StoredSample(values={"image": picture, "label": label})


@dataclass(frozen=True)
class DrawnSamples:
    """A data set of drawings."""

    seed: int
    size: int
    num_samples: int
    validation: bool = False
    layout: Final[Layout] = PICTURE_AND_LABEL
    notes: Final[tuple[str, ...]] = ()

    @property
    def recipe(self) -> dict[str, int]:
        return {
            "drawing": _DRAWING,
            "seed": self.seed,
            "size": self.size,
            "num_samples": self.num_samples,
            "validation": int(self.validation),
        }

    @property
    def told(self) -> dict[str, Any]:
        return {"source": "drawn shapes and textures", "recipe": self.recipe, "classes": CLASSES}

    def __len__(self) -> int:
        return self.num_samples

    def item(self, index: int) -> Drawing:
        return Drawing(self.seed, index + _VALIDATION * self.validation, self.size)


def is_drawn(path: Path, samples: DrawnSamples) -> bool:
    """Whether `path` already holds these very samples, by its card and its size."""
    card = read_card(path)
    if card is None or card.recipe != samples.recipe:
        return False
    return path.is_file() and path.stat().st_size == card.num_bytes

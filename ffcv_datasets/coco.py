"""Reads boxes from a JSON file in COCO's format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.samples import SourceError
from ffcv_datasets.targets import BOX_COLUMNS


@dataclass(frozen=True)
class CocoBoxes:
    categories: tuple[str, ...]
    """Names, in the order of COCO's numbers, which have gaps; here they are 0, 1, .."""
    boxes: dict[str, NDArray[np.float32]]
    """By the image's file name: (n, 5) left, top, right, bottom in pixels, and the category's number here."""
    sizes: dict[str, tuple[int, int]]
    """Width and height of the images, where the file tells them."""
    num_crowds: int
    """Regions that hold several objects; they are no boxes of one, so they are left out."""
    num_empty: int
    """Boxes without width or height, left out as well."""


def read_coco(path: Path) -> CocoBoxes:
    """Raises SourceError for what cannot be read, or contradicts itself."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SourceError(f"{path}: is no JSON file, or a damaged one ({error})") from error
    try:
        return _boxes(path, content["images"], content["annotations"], content["categories"])
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise SourceError(f"{path}: is not in COCO's format ({reason})") from error


def _boxes(
    path: Path,
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
) -> CocoBoxes:
    names = _by_id(path, images, "file_name", "image")
    category_names = _by_id(path, categories, "name", "category")
    numbers = {coco_id: number for number, coco_id in enumerate(sorted(category_names))}
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    num_crowds = num_empty = 0
    for annotation in annotations:
        where = f"{path}: annotation {annotation['id']}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in names:
            raise SourceError(f"{where} is of image {image}, which is not among the images")
        if category not in numbers:
            raise SourceError(f"{where} is of category {category}, which is not among the categories")
        left, top, width, height = _box(where, annotation["bbox"])
        num_crowds += bool(annotation.get("iscrowd", 0))
        if annotation.get("iscrowd", 0):
            continue
        if not (width > 0 and height > 0):
            num_empty += 1
            continue
        rows[names[image]].append((left, top, left + width, top + height, numbers[category]))
    return CocoBoxes(
        categories=tuple(category_names[coco_id] for coco_id in sorted(category_names)),
        boxes={name: np.array(rows[name], np.float32).reshape(-1, BOX_COLUMNS) for name in names.values()},
        sizes={image["file_name"]: (image["width"], image["height"]) for image in images if "width" in image},
        num_crowds=num_crowds,
        num_empty=num_empty,
    )


def _by_id(path: Path, entries: Sequence[Mapping[str, Any]], key: str, what: str) -> dict[int, str]:
    """The entries' names by their numbers, of which each is there once."""
    named: dict[int, str] = {}
    for entry in entries:
        if entry["id"] in named:
            raise SourceError(f"{path}: has two of {what} {entry['id']}")
        named[entry["id"]] = entry[key]
    names = list(named.values())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"{path}: has {what} {twice!r} twice")
    return named


def _box(where: str, box: Sequence[float]) -> tuple[float, ...]:
    if len(box) != 4 or not all(isinstance(number, (int, float)) and math.isfinite(number) for number in box):
        raise SourceError(f"{where}: the box {box} is not left, top, width, height in pixels")
    return tuple(map(float, box))

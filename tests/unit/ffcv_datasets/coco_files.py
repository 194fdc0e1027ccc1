"""Files in COCO's format, as tests want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Annotation = tuple[int, int, float, float, float, float]
"""Number of the image, from 1; category; left, top, width, height."""


def coco(
    images: Mapping[str, tuple[int, int]], annotations: Sequence[Annotation], crowds: Sequence[Annotation] = ()
) -> dict[str, Any]:
    """Images by name with width and height, of categories 3 and 70."""
    told = [(annotation, 0) for annotation in annotations] + [(annotation, 1) for annotation in crowds]
    return {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            for number, (name, size) in enumerate(images.items(), start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": is_crowd}
            for number, ((image, category, *box), is_crowd) in enumerate(told)
        ],
        "categories": [{"id": 70, "name": "c70"}, {"id": 3, "name": "c3"}],
    }


def write_coco(folder: Path, content: object) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path

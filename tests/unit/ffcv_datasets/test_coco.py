from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffcv_datasets.coco import read_coco
from ffcv_datasets.samples import SourceError
from tests.unit.ffcv_datasets.coco_files import coco, write_coco

IMAGES = {"a.jpg": (10, 20), "b.jpg": (30, 40)}


def test_boxes_become_corners_and_categories_numbers_without_gaps(tmp_path: Path) -> None:
    content = coco(IMAGES, [(2, 70, 1, 2, 3.5, 4), (2, 3, 0, 0, 1, 1)])
    read = read_coco(write_coco(tmp_path, content))
    assert read.categories == ("c3", "c70")
    assert read.boxes["a.jpg"].shape == (0, 5)
    assert read.boxes["b.jpg"].tolist() == [[1, 2, 4.5, 6, 1], [0, 0, 1, 1, 0]]
    assert read.sizes == IMAGES


def test_crowds_and_boxes_without_area_are_counted_and_left_out(tmp_path: Path) -> None:
    content = coco(IMAGES, [(1, 3, 1, 1, 0, 5), (1, 3, 1, 1, 5, -1), (1, 3, 0, 0, 1, 1)], crowds=[(2, 3, 0, 0, 9, 9)])
    read = read_coco(write_coco(tmp_path, content))
    assert (read.num_crowds, read.num_empty) == (1, 2)
    assert [len(boxes) for boxes in read.boxes.values()] == [1, 0]


def changed(**entries: Any) -> dict[str, Any]:
    return coco(IMAGES, [(1, 3, 0, 0, 1, 1)]) | entries


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (coco(IMAGES, [(3, 3, 0, 0, 1, 1)]), "annotation 0 is of image 3, which is not among the images"),
        (coco(IMAGES, [(1, 4, 0, 0, 1, 1)]), "annotation 0 is of category 4, which is not among the categories"),
        (changed(annotations=[{"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3]}]), "annotation 5: the box"),
        (
            changed(annotations=[{"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, "4"]}]),
            "annotation 5: the",
        ),
        (changed(annotations=[{"id": 5, "image_id": 1, "category_id": 3}]), "is not in COCO's format (no 'bbox')"),
        (changed(images=[{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]), "has two of image 1"),
        (changed(images=[{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]), "has image 'a' twice"),
        (changed(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "has category 'a' twice"),
        (changed(images=None), "is not in COCO's format"),
        ({"images": []}, "is not in COCO's format (no 'annotations')"),
        ([1], "is not in COCO's format"),
    ],
)
def test_contradictions_are_told(tmp_path: Path, content: object, sentence: str) -> None:
    path = write_coco(tmp_path, content)
    with pytest.raises(SourceError) as caught:
        read_coco(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_or_no_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"x\.json: cannot be read \(No such file or directory\)"):
        read_coco(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(SourceError, match=r"x\.json: is no JSON file, or a damaged one"):
        read_coco(tmp_path / "x.json")

"""Lists a folder of images with a mask for each of them, with boxes, or with both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ffcv_datasets.beton_writer import Layout, layout
from ffcv_datasets.class_tree import image_files, split_folders
from ffcv_datasets.coco import CocoBoxes, read_coco
from ffcv_datasets.items import BoxTargets, FilePart, PictureItem
from ffcv_datasets.samples import SourceError
from ffcv_datasets.targets import BOX_COLUMNS, BOXES, FLOAT32, MASK


@dataclass(frozen=True)
class AnnotatedImages:
    """Images below `root`, with what there is to know of each of their pixels or objects."""

    root: Path
    files: tuple[str, ...]
    """Relative to `root`."""
    masks: Path | None
    """A folder with a PNG file of the same name for each image."""
    coco: CocoBoxes | None
    notes: tuple[str, ...] = ()

    @cached_property
    def layout(self) -> Layout:
        fields: dict[str, Any] = {"image": "image"}
        if self.masks:
            fields[MASK] = "bytes"
        if self.coco:
            fields[BOXES] = (FLOAT32, (self._num_rows, BOX_COLUMNS))
        return layout(fields)

    @cached_property
    def _num_rows(self) -> int:
        """Rows of boxes that each image has, so that the one with the most of them has room; at least 1."""
        assert self.coco
        return max([1, *(len(self.coco.boxes[file]) for file in self.files)])

    @property
    def told(self) -> dict[str, Any]:
        return {"source": self.root.resolve().name} | ({"categories": self.coco.categories} if self.coco else {})

    def __len__(self) -> int:
        return len(self.files)

    def item(self, index: int) -> PictureItem:
        file = self.files[index]
        path = self.root / file
        return PictureItem(
            name=os.fsencode(path).decode("utf-8", "replace"),
            picture=FilePart(str(path)),
            mask=FilePart(str(self.masks / mask_name(file))) if self.masks else None,
            targets=self._targets(file) if self.coco else None,
        )

    def _targets(self, file: str) -> BoxTargets:
        assert self.coco
        return BoxTargets(
            boxes=self.coco.boxes[file],
            size=self.coco.sizes.get(file),
            num_rows=self._num_rows,
            num_categories=len(self.coco.categories),
        )


def list_annotated(source: Path, *, masks: Path | None = None, boxes: Path | None = None) -> dict[str, AnnotatedImages]:
    """{"": images} of one folder or, with masks alone, {"train": images, "val": images} where both folders hold both.

    Folders below are no classes. Raises SourceError.
    """
    splits = split_folders(source)
    if "" in splits:
        return {"": _list_split(source, masks, boxes)}
    if boxes:
        train, val = splits.values()
        raise SourceError(f"{source}: holds {train.name}/ and {val.name}/, and {boxes} tells of one; write each alone")
    return {name: _list_split(folder, masks / folder.name if masks else None, None) for name, folder in splits.items()}


def mask_name(file: str) -> str:
    """street/1.jpg -> street/1.png"""
    return str(PurePosixPath(file).with_suffix(".png"))


def _list_split(root: Path, masks: Path | None, boxes: Path | None) -> AnnotatedImages:
    files, num_others = image_files(root)
    notes = [f"ignored, being no images by their names: {num_others:,} files"] if num_others else []
    coco = read_coco(boxes) if boxes else None
    if coco:
        _require(root, sorted(coco.boxes.keys() - set(files)), f"images that {boxes} tells of are not there")
        unnamed = len(files) - len(coco.boxes)
        files = sorted(coco.boxes)
        for count, what in ((unnamed, f"images that {boxes} does not name"), *_left_out(coco)):
            notes += [f"left out: {count:,} {what}"] if count else []
    if masks:
        have = set(_png_files(masks))
        _require(masks, [mask_name(file) for file in files if mask_name(file) not in have], "masks are not there")
    if not files:
        raise SourceError(f"{root}: holds no images")
    return AnnotatedImages(root, tuple(files), masks, coco, tuple(notes))


def _left_out(coco: CocoBoxes) -> tuple[tuple[int, str], ...]:
    return (coco.num_crowds, "regions of crowds"), (coco.num_empty, "boxes without width or height")


def _png_files(masks: Path) -> list[str]:
    if not masks.is_dir():
        raise SourceError(f"{masks}: there is no such folder of masks")
    return [file for file in image_files(masks)[0] if file.endswith(".png")]


def _require(folder: Path, missing: list[str], what: str) -> None:
    if missing:
        raise SourceError(f"{folder}: {len(missing):,} {what}, such as {missing[0]}")

"""Lists a class tree: FOLDER/<class>/**/*.jpg, whole or as train/ and val/."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_writer import PICTURE_AND_LABEL, Layout
from ffcv_datasets.items import FilePart, PictureItem
from ffcv_datasets.samples import SourceError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
VALIDATION_NAMES = ("val", "validation", "test")
"""Folders taken for the validation split; the first that is there wins."""


class ClassTreeError(SourceError):
    """A folder that is not a class tree."""


@dataclass(frozen=True)
class ClassTree:
    """The image files of a class tree: samples to write."""

    root: Path
    classes: tuple[str, ...]
    """Names of the class folders in label order."""
    files: tuple[str, ...]
    """Image files relative to `root`, by class, then by path."""
    labels: NDArray[np.int64]
    """(num_files,): the class of each file."""
    num_ignored: int
    """Files that are no images by their name."""
    layout: Final[Layout] = PICTURE_AND_LABEL

    @property
    def told(self) -> dict[str, Any]:
        # The folder's own name; where it lies is this machine's business.
        return {"source": self.root.resolve().name, "classes": self.classes}

    @property
    def notes(self) -> list[str]:
        return [f"ignored, being no images by their names: {self.num_ignored:,} files"] if self.num_ignored else []

    def __len__(self) -> int:
        return len(self.files)

    def item(self, index: int) -> PictureItem:
        path = self.root / self.files[index]
        name = os.fsencode(path).decode("utf-8", "replace")
        return PictureItem(name=name, picture=FilePart(str(path)), label=int(self.labels[index]))


def split_folders(source: Path) -> dict[str, Path]:
    """{"": source}, or {"train": folder, "val": folder} where `source` holds both. Raises ClassTreeError."""
    if not source.is_dir():
        raise ClassTreeError(f"{source}: there is no such folder")
    train = source / "train"
    found = [source / name for name in VALIDATION_NAMES if (source / name).is_dir()]
    if train.is_dir() and found:
        return {"train": train, "val": found[0]}
    if _folders(source) == ["train"]:
        names = ", ".join(f"{name}/" for name in VALIDATION_NAMES)
        raise ClassTreeError(f"{source}: holds train/ but none of {names}; give {train} to write it alone")
    return {"": source}


def list_splits(source: Path) -> dict[str, ClassTree]:
    """{"": tree} of one class tree, or {"train": tree, "val": tree} where `source` holds both.

    The classes of "val" are those of "train", so that labels agree. Raises ClassTreeError.
    """
    splits = split_folders(source)
    if "" in splits:
        return {"": list_class_tree(source)}
    tree = list_class_tree(splits["train"])
    return {"train": tree, "val": list_class_tree(splits["val"], classes=tree.classes)}


def list_class_tree(root: Path, *, classes: Sequence[str] | None = None) -> ClassTree:
    """List the image files below `root`; `classes` gives the labels, else the sorted names of its folders do.

    Hidden folders are passed over, links are followed, files that are no images are counted. With `classes`
    given, a class may have no folder here. Raises ClassTreeError.
    """
    names = _folders(root)
    _check_root(root, names, classes)
    label_of = {name: label for label, name in enumerate(classes or names)}
    files: list[str] = []
    labels: list[int] = []
    num_ignored = sum(not _is_image(entry.name) for entry in os.scandir(root) if entry.is_file())
    for name in names:
        images, num_others = image_files(root / name)
        num_ignored += num_others
        if not images and classes is None:
            raise ClassTreeError(f"{root / name}: holds no image to learn this class from; remove the folder")
        files += [f"{name}/{image}" for image in images]
        labels += [label_of[name]] * len(images)
    return ClassTree(root, tuple(label_of), tuple(files), np.array(labels, np.int64), num_ignored)


def _folders(root: Path) -> list[str]:
    entries = (entry for entry in os.scandir(root) if entry.is_dir())
    return sorted(entry.name for entry in entries if not entry.name.startswith("."))


def _check_root(root: Path, names: Sequence[str], classes: Sequence[str] | None) -> None:
    belong = f"images belong into {root.name}/<class>/"
    stray = sorted(entry.name for entry in os.scandir(root) if entry.is_file() and _is_image(entry.name))
    if stray:
        raise ClassTreeError(f"{root}: {stray[0]} lies outside of any class; {belong}")
    if not names:
        raise ClassTreeError(f"{root}: holds no class folders; {belong}")
    unreadable = [name for name in names if not name.isprintable()]
    if unreadable:
        raise ClassTreeError(f"{root}: the folder name {unreadable[0]!r} is not readable text; rename it")
    unknown = [name for name in names if classes is not None and name not in classes]
    if unknown:
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise ClassTreeError(
            f"{root}: {len(unknown)} of its classes are not among the training split's: {listed}; "
            "no model could know them, so rename or remove those folders"
        )


def image_files(root: Path) -> tuple[list[str], int]:
    """Image files below `root`, relative to it and sorted; number of the other files."""
    images: list[str] = []
    num_others = 0
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        inside = "" if folder == os.fspath(root) else os.path.relpath(folder, root) + "/"
        chosen = [inside + file for file in files if _is_image(file)]
        images += chosen
        num_others += len(files) - len(chosen)
    return sorted(images), num_others


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES

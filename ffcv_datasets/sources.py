"""Finds what a data set is to be written from: a folder, tar shards, a data set of torchvision or of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ffcv_datasets.annotated import list_annotated
from ffcv_datasets.class_tree import list_splits
from ffcv_datasets.labels import read_classes
from ffcv_datasets.samples import Samples, SourceError, check_settings
from ffcv_datasets.shards import ShardOptions, find_shards, list_shards

Settings = Mapping[str, str]

TORCHVISION, HUGGINGFACE = "torchvision:", "huggingface:"


def open_source(source: str, settings: Settings, *, download: bool = False) -> Mapping[str, Samples]:
    """The samples of a source by split: {"": samples} of one, or those of "train" and "val".

    `download` allows a data set of torchvision to be fetched where it is not on disk. Raises SourceError.
    """
    if source.startswith(TORCHVISION):
        from ffcv_datasets.torchvision_source import open_torchvision

        return open_torchvision(source.removeprefix(TORCHVISION), settings, download=download)
    if download:
        raise SourceError(f"{source}: only data sets of torchvision can be downloaded, as in torchvision:CIFAR10")
    if source.startswith(HUGGINGFACE):
        from ffcv_datasets.huggingface_source import open_huggingface

        return open_huggingface(Path(source.removeprefix(HUGGINGFACE)), settings)
    if _names_shards(source):
        return {"": _shards(source, settings)}
    return _folder(Path(source), settings)


def _names_shards(source: str) -> bool:
    folder = Path(source)
    return source.endswith((".tar", ".tar.gz", ".tgz")) or (folder.is_dir() and any(folder.glob("*.tar")))


def _shards(source: str, settings: Settings) -> Samples:
    check_settings(settings, ("label", "image", "mask", "classes"), source)
    classes = read_classes(Path(settings["classes"])) if "classes" in settings else None
    label = settings.get("label", None if "mask" in settings else "cls")
    options = ShardOptions(label=label, image=settings.get("image"), mask=settings.get("mask"), classes=classes)
    return list_shards(find_shards(source), options, source=Path(source).name)


def _folder(folder: Path, settings: Settings) -> Mapping[str, Samples]:
    check_settings(settings, ("masks", "boxes"), str(folder))
    if not settings:
        return list_splits(folder)
    paths = {name: Path(path) for name, path in settings.items()}
    return list_annotated(folder, **paths)

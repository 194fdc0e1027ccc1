"""Data sets of torchvision, by name. Nothing else imports torchvision here, and it only does when it is asked for."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from ffcv_datasets.beton_writer import Layout, layout
from ffcv_datasets.items import FilePart, PictureItem
from ffcv_datasets.picture import PictureError
from ffcv_datasets.samples import SourceError, check_settings
from ffcv_datasets.targets import MASK

_NOT_SETTINGS = ("self", "transform", "target_transform", "transforms", "download", "loader", "is_valid_file")


class TorchvisionSamples:
    """One split of a data set that gives pictures with a label or with a mask."""

    def __init__(self, name: str, dataset: Any) -> None:
        """Raises SourceError for a data set of another kind."""
        self._name, self._dataset = name, dataset
        if not len(dataset):
            raise SourceError(f"{name}: is empty")
        picture, target = (*dataset[0], None, None)[:2]
        if has_mask := isinstance(target, Image.Image):
            _mask(target)  # closes its file
        if not isinstance(picture, (FilePart, Image.Image)) or not (has_mask or _is_label(target)):
            kinds = f"{type(picture).__name__} and {type(target).__name__}"
            raise SourceError(f"{name}: gives {kinds}, where a picture and its class, or its mask, can be written")
        self.layout: Layout = layout(
            {"image": "image", MASK: "bytes"} if has_mask else {"image": "image", "label": "int"}
        )
        self._classes = None if has_mask else _classes(dataset)
        self.told: Mapping[str, Any] = {"source": name, "classes": self._classes}
        self.notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._dataset)

    def item(self, index: int) -> PictureItem:
        try:
            picture, target, *_ = self._dataset[index]
        except Exception as error:  # whatever the data set's own code makes of a damaged file
            raise PictureError(f"cannot be read ({error})") from error
        name = picture.path if isinstance(picture, FilePart) else f"{self._name}, sample {index}"
        if MASK in self.layout.kinds:
            return PictureItem(name=name, picture=picture, mask=_mask(target))
        end = len(self._classes) if self._classes else np.iinfo(np.int64).max
        if not 0 <= int(target) < end:
            raise PictureError(f"the label {target} is not in 0 .. {end - 1}")
        return PictureItem(name=name, picture=picture, label=int(target))


def open_torchvision(name: str, settings: Mapping[str, str], *, download: bool) -> dict[str, TorchvisionSamples]:
    """The data set `name`; both splits, as "train" and "val", where it has the argument `train` and that is not given.

    Raises SourceError for what torchvision has not, or what is not on disk and not to be downloaded.
    """
    from torchvision import datasets

    source = f"torchvision:{name}"
    kind = getattr(datasets, name, None)
    if not (name in datasets.__all__ and inspect.isclass(kind)):
        raise SourceError(f"{source}: torchvision has no such data set; their names are written as in CIFAR10")
    parameters = _parameters(kind)
    known = [key for key in parameters if key not in _NOT_SETTINGS]
    check_settings(settings, known, source)
    arguments: dict[str, Any] = {key: _value(source, parameters[key], text) for key, text in settings.items()}
    missing = [key for key in known if parameters[key].default is inspect.Parameter.empty and key not in arguments]
    if missing:
        hint = ", the folder where it lies" if missing == ["root"] else ""
        raise SourceError(f"{source}: needs {' '.join(f'{key}=...' for key in missing)}{hint}")
    if "loader" in parameters:
        arguments["loader"] = lambda path: FilePart(str(path))  # its files as they are, not decoded
    if "download" in parameters:
        arguments["download"] = download
    elif download:
        raise SourceError(f"{source}: torchvision cannot download it; get it from its home page")
    if "train" not in parameters or "train" in arguments:
        return {"": TorchvisionSamples(source, _open(source, kind, arguments))}
    splits = {"train": True, "val": False}
    return {
        split: TorchvisionSamples(source, _open(source, kind, arguments | {"train": train}))
        for split, train in splits.items()
    }


def _open(source: str, kind: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        reason, _, _ = str(error).partition(" You can use download=True")
        hint = "; --download fetches it" if arguments.get("download") is False else ""
        raise SourceError(f"{source}: cannot be opened: {reason}{hint}") from error


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class, those included that it hands on to the one it is made from."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(kind):
        its_own = inspect.signature(getattr(base, "__init__")).parameters  # noqa: B009  mypy knows it for unsound
        parameters = dict(its_own) | parameters
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in its_own.values()):
            break
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in variable}


def _value(source: str, parameter: inspect.Parameter, text: str) -> bool | int | str:
    """A setting as the argument that it stands for."""
    if isinstance(parameter.default, bool):
        if text not in ("true", "false"):
            raise SourceError(f"{source}: {parameter.name}={text} is neither true nor false")
        return text == "true"
    if isinstance(parameter.default, int):
        if not text.isdecimal():
            raise SourceError(f"{source}: {parameter.name}={text} is no number")
        return int(text)
    return text


def _is_label(target: object) -> bool:
    return isinstance(target, (int, np.integer)) or (hasattr(target, "item") and getattr(target, "ndim", 1) == 0)


def _classes(dataset: Any) -> tuple[str, ...] | None:
    names = getattr(dataset, "classes", None)
    if not names:
        return None
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)


def _mask(mask: Image.Image) -> FilePart | bytes:
    """A mask as the PNG file that it was opened from, or as one made of it."""
    if mask.format == "PNG" and isinstance(mask, ImageFile.ImageFile) and mask.filename:
        mask.close()
        return FilePart(os.fsdecode(mask.filename))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()

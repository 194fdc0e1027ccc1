"""Hugging Face data sets that lie on disk. Nothing else imports their library here, and it only does when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffcv_datasets.beton_writer import Layout, layout
from ffcv_datasets.class_tree import VALIDATION_NAMES
from ffcv_datasets.items import FilePart, PictureItem
from ffcv_datasets.labels import label_of, read_classes
from ffcv_datasets.picture import PictureError
from ffcv_datasets.samples import SourceError, check_settings
from ffcv_datasets.targets import MASK

if TYPE_CHECKING:
    from datasets import Dataset


class _Columns(NamedTuple):
    image: str
    label: str | None
    mask: str | None


class HuggingFaceSamples:
    """The rows of a table with a column of images, and one of labels or of masks, or both."""

    def __init__(self, name: str, rows: Dataset, columns: _Columns, classes: Sequence[str] | None) -> None:
        self._name, self._rows, self._columns = name, _undecoded(rows, columns), columns
        self._numbers = None if classes is None else {name: number for number, name in enumerate(classes)}
        fields = {"image": "image"}
        if columns.label:
            fields["label"] = "int"
        if columns.mask:
            fields[MASK] = "bytes"
        self.layout: Layout = layout(fields)
        self.told: Mapping[str, Any] = {"source": name, "classes": None if classes is None else tuple(classes)}
        self.notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, index: int) -> PictureItem:
        row, name, columns = self._rows[index], f"{self._name}, row {index}", self._columns
        return PictureItem(
            name=name,
            picture=_content(row[columns.image]),
            label=label_of(row[columns.label], self._numbers, where=name) if columns.label else None,
            mask=_content(row[columns.mask]) if columns.mask else None,
        )


def open_huggingface(path: Path, settings: Mapping[str, str]) -> dict[str, HuggingFaceSamples]:
    """The split that `split=` names, or the only one as "", or "train" and "val". Raises SourceError."""
    source = f"huggingface:{path}"
    check_settings(settings, ("image", "label", "mask", "split", "classes"), source)
    splits = _choose(source, _load(source, path), settings.get("split"))
    first = next(iter(splits.values()))
    columns = _Columns(
        image=settings.get("image") or _image_column(source, first),
        label=settings.get("label") or _label_column(source, first, needed="mask" not in settings),
        mask=settings.get("mask"),
    )
    for column in columns:
        if column and column not in first.column_names:
            raise SourceError(f"{source}: has no column {column!r}; its columns: {', '.join(first.column_names)}")
    classes: Sequence[str] | None = _classes(first, columns.label) if columns.label else None
    if "classes" in settings:
        classes = read_classes(Path(settings["classes"]))
    return {name: HuggingFaceSamples(path.name, rows, columns, classes) for name, rows in splits.items()}


def _load(source: str, path: Path) -> dict[str, Dataset]:
    """All splits of what lies there."""
    try:
        import datasets
    except ImportError as error:
        raise SourceError(f"{source}: needs the datasets library: pip install 'resolute[huggingface]'") from error
    if not path.exists():
        raise SourceError(f"{source}: there is no such folder; only data sets that are on disk can be written")
    datasets.disable_progress_bars()
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            loaded = datasets.load_dataset("parquet", data_files=str(path))
        elif any(path.rglob("*.parquet")):
            loaded = datasets.load_dataset("parquet", data_dir=str(path))
        else:
            loaded = datasets.load_dataset("imagefolder", data_dir=str(path))
    except Exception as error:  # the library has no error of its own for what it cannot read
        raise SourceError(f"{source}: cannot be opened: {str(error).splitlines()[0]}") from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}


def _choose(source: str, splits: Mapping[str, Dataset], chosen: str | None) -> dict[str, Dataset]:
    if chosen is not None:
        if chosen not in splits:
            raise SourceError(f"{source}: has no split {chosen!r}; its splits: {', '.join(splits)}")
        return {"": splits[chosen]}
    if len(splits) == 1:
        return {"": next(iter(splits.values()))}
    validation = next((name for name in VALIDATION_NAMES if name in splits), None)
    if validation is None or "train" not in splits:
        raise SourceError(f"{source}: has the splits {', '.join(splits)}; choose one by split=NAME")
    return {"train": splits["train"], "val": splits[validation]}


def _image_column(source: str, rows: Dataset) -> str:
    from datasets import Image

    columns: list[str] = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
    if len(columns) != 1:
        listed = ", ".join(rows.column_names)
        raise SourceError(f"{source}: has {len(columns)} columns of images; name one by image=, of {listed}")
    return columns[0]


def _label_column(source: str, rows: Dataset, *, needed: bool) -> str | None:
    from datasets import ClassLabel

    columns: list[str] = [name for name, feature in rows.features.items() if isinstance(feature, ClassLabel)]
    if len(columns) == 1:
        return columns[0]
    if needed or columns:
        listed = ", ".join(rows.column_names)
        raise SourceError(f"{source}: has {len(columns)} columns of classes; name one by label=, of {listed}")
    return None


def _classes(rows: Dataset, label: str) -> list[str] | None:
    """The names of the classes: the feature's, or the texts that there are; None for plain numbers."""
    from datasets import ClassLabel

    feature = rows.features[label]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    return sorted(rows.unique(label)) if getattr(feature, "dtype", "") in ("string", "large_string") else None


def _undecoded(rows: Dataset, columns: _Columns) -> Dataset:
    """With the files of images as they are."""
    from datasets import Image

    for column in (columns.image, columns.mask):
        if column and isinstance(rows.features[column], Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows


def _content(value: Any) -> FilePart | bytes:
    """An image file's bytes, or where it lies. Raises PictureError."""
    if isinstance(value, Mapping) and (value.get("bytes") or value.get("path")):
        value = value["bytes"] or FilePart(value["path"])
    if not isinstance(value, (bytes, FilePart)):
        raise PictureError(f"is no image file but of type {type(value).__name__}")
    return value

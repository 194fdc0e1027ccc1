"""Lists WebDataset shards: tar files in which 0001.jpg and 0001.cls, equal up to the first dot, are one sample."""

from __future__ import annotations

import glob
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_writer import Layout, layout
from ffcv_datasets.items import FilePart, PictureItem
from ffcv_datasets.labels import label_of
from ffcv_datasets.samples import SourceError
from ffcv_datasets.targets import MASK

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm")
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
"""Key and ending of a member; what does not match, such as hidden files, belongs to no sample."""
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class ShardOptions:
    """Which members of a sample are what, by their endings."""

    label: str | None = "cls"
    """An ending whose member is a number or a class's name, or ENDING:KEY for a value of a JSON object."""
    image: str | None = None
    """The first ending of an image when absent."""
    mask: str | None = None
    classes: tuple[str, ...] | None = None
    """Names in label order."""

    @cached_property
    def numbers(self) -> dict[str, int] | None:
        """Each class's label."""
        return None if self.classes is None else {name: label for label, name in enumerate(self.classes)}


@dataclass(frozen=True)
class ShardSamples:
    """The samples of some shards, in the order of the shards and of the members that begin them."""

    shards: tuple[Path, ...]
    keys: tuple[str, ...]
    places: NDArray[np.int64]
    """(N, 5): number of the shard, offset and size of the image, offset and size of the mask."""
    labels: NDArray[np.int64] | None
    """(N,)"""
    layout: Layout
    told: dict[str, Any]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def item(self, index: int) -> PictureItem:
        shard, *image_and_mask = self.places[index].tolist()
        path = str(self.shards[shard])
        image, mask = FilePart(path, *image_and_mask[:2]), FilePart(path, *image_and_mask[2:])
        return PictureItem(
            name=f"{path}: {self.keys[index]}",
            picture=image,
            label=None if self.labels is None else int(self.labels[index]),
            mask=mask if MASK in self.layout.kinds else None,
        )


def expand_braces(pattern: str) -> list[str]:
    """ "a-{08..10}.tar" -> a-08.tar, a-09.tar, a-10.tar; "{a,b}" -> a, b. None may stand within another."""
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    numbers = _RANGE.fullmatch(found[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        step = 1 if last >= first else -1
        choices = [f"{number:0{width}}" for number in range(first, last + step, step)]
    else:
        choices = found[1].split(",")
    return [
        text for choice in choices for text in expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])
    ]


def find_shards(source: str) -> list[Path]:
    """The tar files that a folder, a pattern with {000..012} or *, or a path names. Raises SourceError."""
    if Path(source).is_dir():
        return _some(sorted(Path(source).glob("*.tar")), source)
    if Path(source).exists():
        return [Path(source)]
    paths = [Path(path) for text in expand_braces(source) for path in (sorted(glob.glob(text)) or [text])]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise SourceError(f"{missing[0]}{more}: there is no such file")
    return paths


def _some(shards: list[Path], source: str) -> list[Path]:
    if not shards:
        raise SourceError(f"{source}: holds no .tar files")
    return shards


def list_shards(shards: Sequence[Path], options: ShardOptions, *, source: str) -> ShardSamples:
    """Read the shards' tables and labels. Raises SourceError for what is missing, there twice or out of range."""
    keys: dict[str, Path] = {}
    places: list[tuple[int, ...]] = []
    labels: list[int] = []
    ignored: set[str] = set()
    for number, shard in enumerate(shards):
        for key, members in _samples_of(shard):
            if key in keys:
                raise SourceError(f"{shard}: sample {key!r} is in {keys[key]} too; no sample may be there twice")
            keys[key] = shard
            image = _image(shard, key, members, options)
            mask = _member(shard, key, members, options.mask) if options.mask else _NOTHING
            places.append((number, image.offset, image.size, mask.offset, mask.size))
            if options.label:
                labels.append(_label(shard, key, members, options))
            ignored |= members.keys() - {image.ending, mask.ending, (options.label or "").partition(":")[0]}
    notes = (f"passed over in the samples: {', '.join(sorted(ignored))}",) if ignored else ()
    fields = {"image": "image"}
    if options.label:
        fields["label"] = "int"
    if options.mask:
        fields[MASK] = "bytes"
    return ShardSamples(
        shards=tuple(shards),
        keys=tuple(keys),
        places=np.array(places, np.int64),
        labels=np.array(labels, np.int64) if options.label else None,
        layout=layout(fields),
        told={"source": source, "classes": options.classes if options.label else None},
        notes=notes,
    )


@dataclass(frozen=True)
class _Member:
    ending: str
    offset: int
    size: int
    text: bytes = field(repr=False)
    """What it holds; of images and masks nothing."""


_NOTHING = _Member("", 0, 0, b"")
_MAX_TEXT = 1 << 20


def _samples_of(shard: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """Key and members, by ending, of each sample. Raises SourceError."""
    try:
        with tarfile.open(shard, "r:") as archive:
            members = ((_NAME.fullmatch(info.name.removeprefix("./")), info) for info in archive if info.isfile())
            named = ((name[1], name[2].lower(), info) for name, info in members if name)
            is_empty = True
            for key, group in itertools.groupby(named, lambda member: member[0]):
                is_empty = False
                yield key, _by_ending(shard, key, group, archive)
    except tarfile.TarError as error:
        raise SourceError(f"{shard}: {_reason(shard, error)}") from error
    if is_empty:
        raise SourceError(f"{shard}: holds no samples, whose members are named KEY.jpg, KEY.cls and so on")


def _by_ending(
    shard: Path, key: str, group: Iterator[tuple[str, str, tarfile.TarInfo]], archive: tarfile.TarFile
) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    for _, ending, info in group:
        if ending in members:
            raise SourceError(f"{shard}: sample {key!r} has two members .{ending}")
        is_picture = ending.rpartition(".")[2] in IMAGE_ENDINGS or info.size > _MAX_TEXT
        content = None if is_picture else archive.extractfile(info)
        members[ending] = _Member(ending, info.offset_data, info.size, content.read() if content else b"")
    return members


def _reason(shard: Path, error: tarfile.TarError) -> str:
    with shard.open("rb") as file:
        start = file.read(2)
    if not start:
        return "is empty"
    if start == b"\x1f\x8b":
        return "is compressed, so that no image can be read by itself; unpack it with gunzip"
    return f"is no tar file, or a damaged one ({error})"


def _image(shard: Path, key: str, members: dict[str, _Member], options: ShardOptions) -> _Member:
    if options.image:
        return _member(shard, key, members, options.image)
    found = [ending for ending in IMAGE_ENDINGS if ending in members]
    if not found:
        raise SourceError(f"{shard}: sample {key!r} has no image; its members: {_listed(members)}")
    if len(found) > 1:
        raise SourceError(f"{shard}: sample {key!r} has {len(found)} images; choose by image={found[0]}")
    return members[found[0]]


def _member(shard: Path, key: str, members: dict[str, _Member], ending: str) -> _Member:
    if ending not in members:
        raise SourceError(f"{shard}: sample {key!r} has no member .{ending}; its members: {_listed(members)}")
    return members[ending]


def _listed(members: dict[str, _Member]) -> str:
    return ", ".join(f".{ending}" for ending in members)


def _label(shard: Path, key: str, members: dict[str, _Member], options: ShardOptions) -> int:
    assert options.label
    ending, _, entry = options.label.partition(":")
    where = f"{shard}: sample {key!r}"
    if ending not in members and ending == "cls" and "json" in members:
        raise SourceError(f"{where} has no member .cls; of its .json, label=json:KEY takes a value")
    text = _member(shard, key, members, ending).text
    value: object = text.decode("utf-8", "replace").strip()
    if entry:
        value = _entry(where, text, entry)
    return label_of(value, options.numbers, where=where)


def _entry(where: str, text: bytes, entry: str) -> object:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SourceError(f"{where}: its JSON is damaged ({error})") from error
    if not isinstance(content, dict) or entry not in content:
        known = ", ".join(content) if isinstance(content, dict) else "it is no object"
        raise SourceError(f"{where}: its JSON has no {entry!r} ({known})")
    value: object = content[entry]
    return value

"""What makes a directory a valid checkpoint: its name, its manifest, and the files listed there.

Everything here may come from a stranger: names and types are checked before use, only plain files are read,
and nothing that is read can run code.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from launcher.durable import sync
from launcher.paths import CheckpointName
from launcher.plan import Position

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_SEAL = b',\n "manifest_sha256": "'
_CHUNK_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 64 << 20


class CheckpointError(ValueError):
    """A checkpoint, or what stands in its place, cannot be used."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


PartName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class PartFile(_Strict):
    """What `<part>.safetensors` must be."""

    size_bytes: int
    sha256: str
    tied: dict[str, str]
    """Tensors left out because they share the memory of another of this part: name -> the other's name."""


class Manifest(_Strict):
    """The content of manifest.json, but for the seal on its end."""

    format: Literal["resolute-checkpoint"] = "resolute-checkpoint"
    format_version: Literal[1] = 1
    epoch: Annotated[int, Field(ge=0)]
    samples_done: Annotated[int, Field(ge=0)]
    parts: dict[PartName, PartFile]
    facts: dict[str, Any]


@dataclass(frozen=True)
class CheckpointInfo:
    """A valid checkpoint."""

    path: Path
    position: Position
    parts: dict[str, PartFile]
    facts: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        return sum(file.size_bytes for file in self.parts.values())

    def fact(self, *keys: str) -> Any:
        """The fact at these keys, one within the other. Raises CheckpointError where there is none."""
        found: Any = self.facts
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                raise CheckpointError(f"{self.path.name} does not fit this job: it tells no {'.'.join(keys)}")
            found = found[key]
        return found


def part_path(directory: Path, part: str) -> Path:
    return directory / f"{part}.safetensors"


def describe_part(path: Path, tied: dict[str, str]) -> PartFile:
    """The manifest's entry for a part that has just been written."""
    return PartFile(size_bytes=path.stat().st_size, sha256=_sha256(path), tied=tied)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json and flush it to disk."""
    path = directory / MANIFEST
    path.write_bytes(sealed(manifest.model_dump()))
    sync(path)


def sealed(entries: Mapping[str, Any]) -> bytes:
    """JSON with one entry more, the last: the SHA-256 of all the bytes before it."""
    body = json.dumps(entries, indent=1).removesuffix("\n}").encode()
    return body + _seal(body)


def verify(path: Path) -> CheckpointInfo:
    """Check everything about the checkpoint in directory `path`: its name, manifest, files, sizes and sums.

    Raises CheckpointError.
    """
    try:
        return _verify(path)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error})") from error


def _verify(path: Path) -> CheckpointInfo:
    name = CheckpointName.parse(path.name)
    if name is None:
        raise CheckpointError(f"{path.name} is not the name of a checkpoint")
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise CheckpointError(f"{path.name} is a link or a file; only a directory of its own is read")
    manifest = _read_manifest(path)
    position = Position(manifest.epoch, manifest.samples_done)
    if position != name.position:
        raise CheckpointError(f"{path.name} holds the state of {CheckpointName(position)}: it has been renamed")
    for part, file in manifest.parts.items():
        _verify_part(path, part, file)
    return CheckpointInfo(path, position, manifest.parts, manifest.facts)


def _read_manifest(directory: Path) -> Manifest:
    where = f"{directory.name}: {MANIFEST}"
    size = _require_file(directory / MANIFEST).stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{where} is {size:,} bytes long, as none of ours is")
    content = (directory / MANIFEST).read_bytes()
    try:
        entries = json.loads(content, object_pairs_hook=_without_repeats)
        version = entries["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{where} is damaged, or not ours") from error
    # Before the seal: a later release may seal differently.
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has format version {version!r}, and this release reads {FORMAT_VERSION}: "
            f"resume with the release that wrote it"
        )
    body, _, _ = content.rpartition(_SEAL)
    if content != body + _seal(body):
        raise CheckpointError(f"{where} was changed since it was written")
    del entries["manifest_sha256"]
    try:
        return Manifest.model_validate(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise CheckpointError(f"{where} is not ours: {place}: {first['msg']}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of a key that stands twice, readers may take the one or the other: an error."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands twice")
    return entries


def _seal(body: bytes) -> bytes:
    return _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def _verify_part(directory: Path, part: str, file: PartFile) -> None:
    path = _require_file(part_path(directory, part))
    where = f"{directory.name}: {path.name}"
    size = path.stat().st_size
    if size != file.size_bytes:
        raise CheckpointError(f"{where} is {size} bytes long instead of {file.size_bytes}")
    if _sha256(path) != file.sha256:
        raise CheckpointError(f"{where} was changed since it was written: its SHA-256 differs")
    try:
        with safe_open(path, framework="pt") as tensors:
            names = set(tensors.keys())
    except SafetensorError as error:
        raise CheckpointError(f"{where} is not a safetensors file ({error})") from error
    absent = set(file.tied.values()) - names
    if absent:
        raise CheckpointError(f"{where} lacks {', '.join(sorted(absent))}, to which other names are tied")


def _require_file(path: Path) -> Path:
    """`path`, if a plain file lies there: neither a link to one elsewhere nor a pipe, which would block."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent.name}: {path.name} is missing") from None
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a file"
        raise CheckpointError(f"{path.parent.name}: {path.name} is {kind}; only plain files are read")
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

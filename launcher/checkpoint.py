"""Checkpoints: commit the state at a position, find the newest valid one, load it, remove old ones.

A checkpoint is a directory `checkpoints/e00005-s000000000/` with one safetensors file per part (model,
optimizer, rng) and `manifest.json`: format version, position, facts, and each file's size and SHA-256. It is
prepared under a temporary name, flushed to disk and renamed, so that it is there as a whole or not at all;
and nothing is ever overwritten.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from launcher import failpoints
from launcher.durable import (
    make_directory,
    naming_full_disk,
    prepared_file,
    remove_temporary,
    require_space,
    share_as_directory,
    sync,
)
from launcher.listing import names_among
from launcher.manifest import (
    CheckpointError,
    CheckpointInfo,
    Manifest,
    PartFile,
    describe_part,
    part_path,
    verify,
    write_manifest,
)
from launcher.paths import CheckpointName, is_temporary, temporary
from launcher.plan import Position
from launcher.retention import to_delete

_NAME_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)

Parts = dict[str, dict[str, Tensor]]
"""Part -> tensor name -> tensor: {"model": model.state_dict(), "optimizer": {...}, "rng": {...}}."""


@dataclass(frozen=True)
class Rejected:
    """What lies among the checkpoints and cannot be used, and a sentence why."""

    path: Path
    reason: str


@dataclass
class Scan:
    """What was found among the checkpoints, newest first."""

    valid: list[CheckpointInfo] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def newest(self) -> CheckpointInfo | None:
        return self.valid[0] if self.valid else None


def save(
    checkpoints_dir: Path,
    position: Position,
    parts: Mapping[str, Mapping[str, Tensor]],
    facts: Mapping[str, Any],
) -> CheckpointInfo:
    """Commit `parts` and `facts` (anything that JSON holds) as the checkpoint of `position`.

    A position that was saved before gets one checkpoint more, which counts as the newer; `prune` removes the
    older.

    Raises DiskFullError, with the earlier checkpoints intact and nothing left of this one.
    """
    target = checkpoints_dir / str(CheckpointName(position))
    needed = estimate_bytes(parts)
    make_directory(checkpoints_dir)
    require_space(target, needed)
    draft = temporary(target, pid=os.getpid())
    remove_temporary(draft)  # Of a dead process that had our process id.
    failpoints.hit("checkpoint.begin")
    try:
        with naming_full_disk(target, needed):
            written = _prepare(draft, position, parts, facts)
            failpoints.hit("checkpoint.before_rename")
            path = _put_in_place(draft, checkpoints_dir, position)
            failpoints.hit("checkpoint.after_rename")
            sync(checkpoints_dir)
    except BaseException:
        remove_temporary(draft)
        raise
    failpoints.hit("checkpoint.committed")
    return CheckpointInfo(path, position, written, dict(facts))


def estimate_bytes(parts: Mapping[str, Mapping[str, Tensor]]) -> int:
    """What a checkpoint of `parts` takes on disk: the tensors, and a little for names and the manifest."""
    tensors = [tensor for part in parts.values() for tensor in part.values()]
    return sum(tensor.nbytes for tensor in tensors) + 256 * len(tensors) + (64 << 10)


def scan(
    checkpoints_dir: Path, *, stop_after: int | None = None, run: str | None = None, told: Collection[str] = ()
) -> Scan:
    """Verify every checkpoint, newest first, up to the first `stop_after` valid ones; of that run, if one is given.

    The names in `told` are looked up, too, where a listing does not show them (see listing.py).
    """
    found = Scan()
    for path in _entries(checkpoints_dir, told):
        if stop_after is not None and len(found.valid) >= stop_after:
            break
        try:
            info = verify(path)
            if run is not None and info.facts.get("run", run) != run:
                raise CheckpointError(f"{path.name} was saved by another run; --accept-changes takes it all the same")
            found.valid.append(info)
        except CheckpointError as error:
            found.rejected.append(Rejected(path, str(error)))
    return found


def newest_valid(checkpoints_dir: Path, *, run: str | None = None, told: Collection[str] = ()) -> Scan:
    """The newest valid checkpoint, and what was rejected on the way to it. Nothing where nothing was saved.

    With `run` given, one whose facts say that it belongs to another run is rejected as well. `told` as for `scan`.

    Raises CheckpointError if there are checkpoints, none of them valid: to start over would lose work in
    silence.
    """
    found = scan(checkpoints_dir, stop_after=1, run=run, told=told)
    if found.rejected and not found.valid:
        reasons = "".join(f"\n  {rejected.reason}" for rejected in found.rejected)
        raise CheckpointError(f"{checkpoints_dir} holds no valid checkpoint; move it away to start over{reasons}")
    return found


def load(info: CheckpointInfo, device: torch.device | str = "cpu") -> tuple[Parts, dict[str, Any]]:
    """A verified checkpoint's tensors, contiguous on `device`, and its facts. Tied names give one tensor."""
    parts: Parts = {}
    for part, file in info.parts.items():
        stored = load_file(part_path(info.path, part))
        # Copied: the file may be pruned while what was loaded still maps it.
        tensors = {name: tensor.to(device, copy=True) for name, tensor in stored.items()}
        parts[part] = tensors | {name: tensors[other] for name, other in file.tied.items()}
    return parts, info.facts


def require_like(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError if the names, shapes or dtypes differ: torch passes over some, and converts others."""
    for name in sorted(expected.keys() | found.keys()):
        kinds = [(tuple(t[name].shape), t[name].dtype) if name in t else None for t in (expected, found)]
        if kinds[0] != kinds[1]:
            wanted, has = ("missing" if kind is None else f"{kind[1]} of shape {kind[0]}" for kind in kinds)
            raise CheckpointError(f"{name} is {has} there, and {wanted} in the model")


def prune(checkpoints_dir: Path, *, keep: Collection[Position], keep_last: int) -> list[Path]:
    """Remove all checkpoints but the last `keep_last` valid ones and those of the positions in `keep`.

    What `scan` rejects stays where it is: it may be a later release's. Returns what was removed.
    """
    rejected = {entry.path for entry in scan(checkpoints_dir, stop_after=keep_last).rejected}
    sound = [path for path in _entries(checkpoints_dir) if path not in rejected]
    names = [name for path in sound if (name := CheckpointName.parse(path.name))]
    removed = [checkpoints_dir / str(name) for name in to_delete(names, keep=keep, keep_last=keep_last)]
    for path in removed:
        # Renamed first: a death in between leaves no half of a checkpoint.
        draft = temporary(path, pid=os.getpid())
        os.rename(path, draft)
        failpoints.hit("checkpoint.deleting")
        remove_temporary(draft)
    return removed


def export_model(path: Path, model: torch.nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the model's weights to the safetensors file `path` atomically, with `metadata` as JSON.

    It lies under one key, "resolute", of the file's own metadata: safetensors writes several keys in random
    order, and equal models shall give equal files. Tied weights are written in full, for readers that know
    nothing of ties.

    Raises DiskFullError, with the old file in place.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with prepared_file(path, num_bytes=estimate_bytes({"model": tensors})) as draft:
        save_file(tensors, draft, metadata={"resolute": json.dumps(metadata, sort_keys=True)})
        share_as_directory(draft)


def _prepare(
    draft: Path, position: Position, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]
) -> dict[str, PartFile]:
    """Write the whole checkpoint into the new directory `draft`, the manifest last, and flush it to disk."""
    draft.mkdir()
    written = {part: _write_part(draft, part, tensors) for part, tensors in parts.items()}
    failpoints.hit("checkpoint.before_manifest")
    epoch, samples_done = position.epoch, position.samples_done
    write_manifest(draft, Manifest(epoch=epoch, samples_done=samples_done, parts=written, facts=dict(facts)))
    sync(draft)
    return written


def _write_part(directory: Path, part: str, tensors: Mapping[str, Tensor]) -> PartFile:
    distinct, tied = _untie(tensors)
    path = part_path(directory, part)
    save_file(distinct, path)
    share_as_directory(path)
    sync(path)
    failpoints.hit("checkpoint.part_written")
    return describe_part(path, tied)


def _untie(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous CPU tensors, no two in the same memory; and each name left out -> the one it is tied to.

    safetensors refuses tensors that share memory. Those that share it in part, as views do, are copied apart.
    """
    distinct: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[object, str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(memory, name) != name:
            tied[name] = first[memory]
            continue
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in storages:
            plain = plain.clone()
        storages.add(plain.untyped_storage().data_ptr())
        distinct[name] = plain
    return distinct, tied


def _put_in_place(draft: Path, checkpoints_dir: Path, position: Position) -> Path:
    """Rename a whole checkpoint to the next name of its position, which a listing may not show to be taken."""
    names = (CheckpointName.parse(name) for name in names_among(checkpoints_dir, ()))
    replay = max((name.replay + 1 for name in names if name and name.position == position), default=0)
    while True:
        path = checkpoints_dir / str(CheckpointName(position, replay))
        try:
            os.rename(draft, path)
            return path
        except OSError as error:
            if error.errno not in _NAME_TAKEN:
                raise
        replay += 1


def _entries(checkpoints_dir: Path, told: Collection[str] = ()) -> list[Path]:
    """What lies among the checkpoints: strangers, then checkpoints, newest first; without temporaries."""
    if not checkpoints_dir.is_dir():
        return []
    entries = [checkpoints_dir / name for name in names_among(checkpoints_dir, told) if not is_temporary(name)]
    named = {path: name for path in entries if (name := CheckpointName.parse(path.name))}
    return sorted(set(entries) - set(named)) + sorted(named, key=lambda path: named[path], reverse=True)

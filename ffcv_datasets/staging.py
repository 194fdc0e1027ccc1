"""Data files appear whole, with their card, or not at all; a write that was cut short can be gone on with."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ffcv_datasets import journal
from ffcv_datasets.card import Card, card_path, write_card
from ffcv_datasets.journal import Record


class WriteError(ValueError):
    """A data set that cannot be written as asked."""


def check_target(path: Path, *, force: bool) -> None:
    """Raises WriteError where `path` cannot be written, or is taken and `force` is not given."""
    if not path.parent.is_dir():
        raise WriteError(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise WriteError(f"{path}: is a folder; name a file")
    if path.exists() and not (force or _is_half_published(path)):
        raise WriteError(f"{path}: exists already; choose another name, or replace it with --force")


class Draft:
    """A data file on its way: OUT.beton.partial, and OUT.beton.journal, which says what of it is safely on disk.

    Left without having been published it keeps what was committed, if anything was, and nothing else.
    """

    file: BinaryIO
    """To be written; the place to go on is the writer's to know."""
    records: list[Record]
    """What was committed before."""
    differences: list[str]
    """The names of the terms that were other ones when the draft was begun."""

    def __init__(self, target: Path, terms: Mapping[str, Any]) -> None:
        """Open what there is of `target`, or begin it; `terms`, JSON, is what every byte of it depends on.

        Raises WriteError while another process writes it.
        """
        self.target, self.path, self._journal_path = target, _partial_path(target), _journal_path(target)
        self._terms = dict(terms)
        self._is_published = False
        self.file, self._journal = _open_locked(self.path), _open(self._journal_path)
        first, *records = journal.read(self._journal) or [{}]
        self.records = _commits(records)
        if self.records and os.fstat(self.file.fileno()).st_size < int(self.records[-1]["size"]):
            self.records = []
        begun_with = json.loads(bytes(first["terms"])) if self.records else self._terms
        names = self._terms.keys() | begun_with.keys()
        self.differences = sorted(name for name in names if self._terms.get(name) != begun_with.get(name))

    def restart(self) -> None:
        """Forget what there is."""
        self.records = []
        for file in (self.file, self._journal):
            file.seek(0)
            file.truncate()
        journal.append(self._journal, {"terms": np.frombuffer(json.dumps(self._terms).encode(), np.uint8)})

    def resume(self) -> None:
        """Keep what was committed, and drop what was written after it."""
        os.ftruncate(self.file.fileno(), int(self.records[-1]["size"]))

    def commit(self, record: Record) -> None:
        """Have all that was written, and this record of it, outlast a crash."""
        self.sync()
        size = os.fstat(self.file.fileno()).st_size
        journal.append(self._journal, {**record, "size": np.array(size)})

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self, card: Card | None) -> None:
        """Give the finished file its name, and its card. Until `forget`, `take_back` can undo that."""
        journal.append(self._journal, {_PUBLISHED: np.array(self.path.stat().st_size)})
        card_path(self.target).unlink(missing_ok=True)  # for a moment rather no card than one of another file
        self.path.replace(self.target)
        self._is_published = True
        if card:
            write_card(card, self.target)
        _sync_folder(self.target.parent)

    def forget(self) -> None:
        """Remove the journal of a published file."""
        self._journal_path.unlink()

    def close(self) -> list[Record]:
        """Leave it; returns what the next writer can go on from."""
        with suppress(OSError):  # as on a full disk, which has been told before
            self.file.flush()
        # Read again: an interrupt may have come when a commit was on disk, and not yet noted here.
        records = [] if self._is_published else _commits(journal.read(self._journal))
        if records:
            os.ftruncate(self.file.fileno(), int(records[-1]["size"]))
        elif not self._is_published:
            self.path.unlink()
            self._journal_path.unlink()
        for file in (self.file, self._journal):
            with suppress(OSError):
                file.close()
        return records


def take_back(target: Path) -> None:
    """Make a draft again of a file whose publication, or that of a file beside it, a crash has cut short."""
    if _is_half_published(target):
        target.rename(_partial_path(target))


def _is_half_published(target: Path) -> bool:
    journal_path = _journal_path(target)
    if not (journal_path.exists() and target.is_file()) or _partial_path(target).exists():
        return False
    with journal_path.open("r+b") as file:
        records = journal.read(file)
    return bool(records) and int(records[-1].get(_PUBLISHED, -1)) == target.stat().st_size


_PUBLISHED = "published"


def _commits(records: list[Record]) -> list[Record]:
    return [record for record in records if "size" in record]


def _partial_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _journal_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.journal")


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _open_locked(path: Path) -> BinaryIO:
    """Open a file that this process alone writes. Raises WriteError where another one does."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise WriteError(f"{path}: another process is writing it; wait for it, or end it") from None
        file.close()  # its name went to a file that was published, or that was given up, in between


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Data files appear whole, with their card, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ffcv_datasets.card import Card, card_path, write_card


class WriteError(ValueError):
    """A data set that cannot be written as asked."""


def check_target(path: Path, *, force: bool) -> None:
    """Raises WriteError where `path` cannot be written, or is taken and `force` is not given."""
    if not path.parent.is_dir():
        raise WriteError(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise WriteError(f"{path}: is a folder; name a file")
    if path.exists() and not force:
        raise WriteError(f"{path}: exists already; choose another name, or replace it with --force")


def temporary_path(target: Path) -> Path:
    """Another name in the target's folder, that nobody else uses."""
    return target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which is on disk when the context ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def publish(temporary: Path, target: Path, card: Card | None) -> None:
    """Give a finished file its name, and its card."""
    card_path(target).unlink(missing_ok=True)  # for a moment rather no card than one of another file
    temporary.replace(target)
    if card:
        write_card(card, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

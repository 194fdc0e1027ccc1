"""Batches that were found before, in the user's cache directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.durable import write_atomically


@dataclass(frozen=True)
class KnownBatch:
    batch: int
    memory_bytes: int
    """What it takes in training."""
    earlier: bool
    """Whether it was found by an earlier search."""


@dataclass(frozen=True)
class BatchCache:
    """A JSON file: what a batch depends on -> the batch. One that cannot be read or written is done without."""

    path: Path

    @classmethod
    def of_user(cls) -> BatchCache:
        """In $XDG_CACHE_HOME, or ~/.cache."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(home) / "resolute" / "batch-sizes.json")

    def look_up(self, key: Mapping[str, Any]) -> KnownBatch | None:
        match self._read().get(_text(key)):
            case {"batch": int(batch), "memory_bytes": int(memory_bytes)} if batch > 0:
                return KnownBatch(batch, memory_bytes, earlier=True)
        return None

    def keep(self, key: Mapping[str, Any], batch: int, memory_bytes: int) -> KnownBatch:
        entries = {**self._read(), _text(key): {"batch": batch, "memory_bytes": memory_bytes}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(entries, indent=1) + "\n")
        except OSError:  # a home that is read-only, or full: the next run searches again
            pass
        return KnownBatch(batch, memory_bytes, earlier=False)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)

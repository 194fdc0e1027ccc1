"""What earlier searches for batches have found, in the user's cache directory."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.durable import write_atomically


@dataclass(frozen=True)
class BatchCache:
    """A JSON file: what a batch depends on -> figures by name. One that cannot be read or written is done without."""

    path: Path

    @classmethod
    def of_user(cls) -> BatchCache:
        """In $XDG_CACHE_HOME, or ~/.cache."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(home) / "resolute" / "batch-sizes.json")

    def look_up(self, key: Mapping[str, Any], *, figures: Collection[str]) -> dict[str, int] | None:
        """The figures that an earlier search has kept; None unless each is there, and is a number above zero."""
        kept = self._read().get(_text(key))
        if not isinstance(kept, dict) or not all(type(kept.get(name)) is int and kept[name] > 0 for name in figures):
            return None
        return {name: kept[name] for name in figures}

    def keep(self, key: Mapping[str, Any], figures: Mapping[str, int]) -> None:
        entries = {**self._read(), _text(key): dict(figures)}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(entries, indent=1) + "\n")
        except OSError:  # a home that is read-only, or full: the next run searches again
            pass

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)

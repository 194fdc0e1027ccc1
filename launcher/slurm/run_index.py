"""Where a user's submitted runs lie, so that they are found by name or job id wherever a profile has put them.

A file in the user's home. It only helps to find: where it cannot be kept or read, a run is named by its directory.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path


def index_file() -> Path:
    """By the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "resolute" / "runs.jsonl"


def remember(root: Path) -> None:
    """Note a run's directory."""
    with contextlib.suppress(OSError, RuntimeError):  # The latter where a user has no home.
        path = index_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(str(root)) + "\n")


def remembered() -> list[Path]:
    """The runs' directories that still exist, those noted first in front."""
    try:
        lines = index_file().read_text(errors="replace").splitlines()
    except (OSError, RuntimeError):
        return []
    return [root for root in map(_read, dict.fromkeys(lines)) if root is not None and os.path.isdir(root)]


def _read(line: str) -> Path | None:
    """None for a line that two hosts have written at a time, or another program has."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return Path(told) if isinstance(told, str) and told.startswith("/") else None

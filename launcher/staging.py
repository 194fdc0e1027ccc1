"""Data files read from a node's own disk: data.stage.

Staging never ends a run, unless the directory cannot be named: whatever goes wrong, workers read the source and say so.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ffcv_datasets.card import CardError
from launcher.events import DataNotStaged, DataStaged, Event
from launcher.node_copy import NodeCopy, NotStagedError, ToldError, reason

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


class StageError(ValueError):
    """data.stage names no directory on this node."""


def stage_directory(stage: str, environment: Mapping[str, str], *, host: str) -> Path:
    """data.stage with its variables replaced. Raises StageError for one that is not set, or empty."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not environment.get(name):
            raise StageError(
                f"data.stage: {stage}: ${name} is not set on {host}, where the worker starts; set it there, name "
                "another directory of the node's own disk, or delete the line to read the data from where it lies"
            )
        return environment[name]

    directory = Path(_VARIABLE.sub(value, stage))
    if not directory.is_absolute():
        raise StageError(f"data.stage: {stage} comes to {directory} on {host}; an absolute path is needed")
    return directory


@contextmanager
def staged(
    sources: Iterable[str], stage: str, *, timeout_s: float, emit: Callable[[Event], None], moved: Callable[[], None]
) -> Iterator[dict[str, Path]]:
    """Yields a copy on this node's disk for each of `sources` that has one; it stays as it is until the context ends.

    The first worker of a node copies, and the others wait for it. After `timeout_s`, and where anything fails, sources
    are read from where they lie. `moved` is called for every chunk, and for every look at the lock of one who waits.

    Raises StageError.
    """
    host, deadline = socket.gethostname(), time.monotonic() + timeout_s
    directory = stage_directory(stage, os.environ, host=host)

    def go_on() -> None:
        moved()
        if time.monotonic() > deadline:
            raise NotStagedError(f"no copy was ready within {timeout_s:g} s (data.stage_timeout_s)")

    with ExitStack() as held:
        copies = {}
        for source in sources:
            try:
                with ExitStack() as taken:
                    copy = taken.enter_context(NodeCopy(Path(source), directory))
                    made = copy.make_ready(go_on)
                    held.enter_context(taken.pop_all())
            except ToldError:
                continue
            except (NotStagedError, CardError, OSError) as error:
                emit(DataNotStaged(host=host, source=source, reason=reason(error)))
                continue
            copies[source] = copy.path
            if made is not None:
                emit(DataStaged(host, source, str(copy.path), made.num_bytes, made.seconds, made.reused))
        yield copies

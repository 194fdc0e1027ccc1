"""What a command shows and says while it works through a data set."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from launcher.cli.console import say
from launcher.cli.errors import STOPPED
from launcher.durable import DiskFullError


@contextmanager
def writing(target: Path) -> Iterator[Callable[[int, int], None]]:
    """Shows progress while data is written; an end signal and a full disk become what a person can read."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress(Console(), "writing") as on_progress:
            yield on_progress
    except KeyboardInterrupt:
        say(Console(stderr=True), f"stopped: {target} is as it was before")
        raise typer.Exit(STOPPED) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"{target}: the disk or your quota is full; {target.name} is as it was before. "
            "Make room and give the same command again, or write elsewhere"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress(console: Console, doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; else a line for every tenth that is done."""
    if not console.is_terminal:

        def show_line(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                say(console, f"{done:,} of {total:,} images")

        yield show_line
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def num_cores() -> int:
    return len(os.sched_getaffinity(0))

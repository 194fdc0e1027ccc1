"""Writes data sets: samples -> DATA.beton and its card.

Processes read and encode the samples in chunks; the caller's process writes them in their order, so that the file
does not depend on how many there are. Nothing has its final name before all of it is on disk; a write that was cut
short, by whatever, goes on where it last committed and ends with the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ffcv_datasets.card import Card
from ffcv_datasets.part import Note, Part
from ffcv_datasets.picture import Encoding
from ffcv_datasets.samples import BadImage, Samples
from ffcv_datasets.staging import WriteError, check_target, take_back

COMMIT_BYTES: Final = 32 << 20
"""Of values written between two commits: some seconds of encoding."""

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number there are."""


class BadImagesError(WriteError):
    """Some images cannot be stored; `images` holds every one of them."""

    def __init__(self, images: Sequence[BadImage]) -> None:
        super().__init__(tuple(images))
        self.images = tuple(images)

    def __str__(self) -> str:
        count = "1 image" if len(self.images) == 1 else f"{len(self.images):,} images"
        return f"{count} cannot be stored; repair or remove them, or leave them out with --skip-bad"


@dataclass(frozen=True)
class Written:
    path: Path
    card: Card | None
    """None where a card could not tell of such a file."""
    skipped: tuple[BadImage, ...]


def split_path(out: Path, split: str) -> Path:
    """DATA.beton and "train" -> DATA.train.beton; without a split DATA.beton. Raises WriteError for another ending."""
    if out.suffix != ".beton":
        raise WriteError(f"{out}: the name of the file to write must end in .beton")
    return out.with_suffix(f".{split}.beton") if split else out


def write_betons(
    parts: Sequence[tuple[Path, Samples]],
    encoding: Encoding,
    *,
    num_workers: int,
    skip_bad: bool = False,
    force: bool = False,
    commit_bytes: int = COMMIT_BYTES,
    on_progress: Progress = lambda done, total: None,
    on_note: Note = lambda note: None,
) -> list[Written]:
    """Write each part's samples to its path, with a card beside it: all parts or, if anything fails, none.

    Raises BadImagesError with every image that cannot be stored (unless `skip_bad`), WriteError for paths that are
    taken (unless `force`), are being written or would be empty, WorkerLostError, OSError where the disk refuses. What
    was committed by then stays beside the path, and the next call with the same arguments goes on from there.
    """
    for path, _ in parts:
        check_target(path, force=force)
    for path, _ in parts:
        take_back(path)
    total = sum(len(samples) for _, samples in parts)
    done = 0
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata would be told into the progress bar
        staged = [stack.enter_context(closing(Part(path, samples, encoding, on_note))) for path, samples in parts]
        for part in staged:
            for _ in part.fill(num_workers, skip_bad=skip_bad, commit_bytes=commit_bytes):
                done += 1
                on_progress(done, total)
        bad = [image for part in staged for image in part.bad]
        if bad and not skip_bad:
            raise BadImagesError(bad)
        return _publish(staged)


def _publish(staged: Sequence[Part]) -> list[Written]:
    cards = [part.finish() for part in staged]
    for part, card in zip(staged, cards, strict=True):
        part.draft.publish(card)
    for part in staged:
        part.draft.forget()
    return [Written(part.draft.target, card, tuple(part.bad)) for part, card in zip(staged, cards, strict=True)]

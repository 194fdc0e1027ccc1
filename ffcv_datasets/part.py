"""One data file on its way: filled with samples, committed now and then, gone on with where the last writer was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import __version__ as pillow_version
from PIL import features

from ffcv_datasets.beton_writer import BetonWriter
from ffcv_datasets.card import Card, file_sha256
from ffcv_datasets.in_order import in_order
from ffcv_datasets.journal import Record
from ffcv_datasets.levels import checksum
from ffcv_datasets.making import Task, identify, make, task
from ffcv_datasets.picture import Encoding
from ffcv_datasets.samples import BadImage, Samples
from ffcv_datasets.staging import Draft, WriteError
from ffcv_datasets.tally import Tally, can_have_card, samples_per_class

_WRITING = 1
"""Changes whenever the same samples would give other bytes."""

Note = Callable[[str], None]
"""Called with what a person should know."""
Result = TypeVar("Result")


class Part:
    """The draft of a file that is to hold all of some samples, in their order."""

    bad: list[BadImage]
    """Those that cannot be stored."""

    def __init__(self, path: Path, samples: Samples, encoding: Encoding, on_note: Note) -> None:
        """Raises WriteError while another process writes it."""
        self.draft = Draft(path, _terms(samples, encoding))
        self.bad = []
        self._samples, self._encoding, self._on_note = samples, encoding, on_note
        self._writer = BetonWriter(
            self.draft.file, capacity=len(samples), sides=encoding.further_sides, layout=samples.layout
        )
        self._tally = Tally()
        self._num_committed = 0
        self._identities: list[int] = []
        """Of the samples dealt with since the last commit."""

    def fill(self, num_workers: int, *, skip_bad: bool, commit_bytes: int) -> Iterator[None]:
        """Write all samples, yielding after each. Unless `skip_bad`, those after a bad one are just checked."""
        self._resume(num_workers)
        yield from [None] * self._num_committed
        committed_at = self._writer.num_bytes
        with closing(self._work(partial(make, encoding=self._encoding), num_workers)) as all_made:
            for made in all_made:
                self._identities.append(made.identity)
                if isinstance(made.sample, BadImage):
                    self.bad.append(made.sample)
                elif self._is_written(skip_bad):
                    self._writer.add(made.sample.values)
                    self._tally.count(made.sample)
                if self._writer.num_bytes - committed_at >= commit_bytes and self._is_written(skip_bad):
                    self._commit()
                    committed_at = self._writer.num_bytes
                yield
        if self._identities and self._writer.num_samples and self._is_written(skip_bad):
            self._commit()

    def _is_written(self, skip_bad: bool) -> bool:
        return skip_bad or not self.bad

    def _work(self, make: Callable[[Task], Result], num_workers: int, *, end: int | None = None) -> Generator[Result]:
        """What `make` makes of the samples after the committed ones, or of those before `end`."""
        samples = range(self._num_committed, len(self._samples)) if end is None else range(end)
        tasks = (task(self._samples, index, self._encoding) for index in samples)
        return in_order(make, tasks, num_items=len(samples), num_workers=num_workers)

    def _commit(self) -> None:
        bad = json.dumps([dataclasses.astuple(image) for image in self.bad])
        self.draft.commit(
            {
                "identities": np.array(self._identities, np.uint64),
                "bad": np.frombuffer(bad.encode(), np.uint8),
                **{_SUM + name: numbers for name, numbers in self._tally.sums.items()},
                **self._writer.changes(),
            }
        )
        self._num_committed += len(self._identities)
        self._identities.clear()

    def _resume(self, num_workers: int) -> None:
        """Go on from what was committed, if it is of the same samples; else begin."""
        records, name = self.draft.records, self.draft.path.name
        reason = self._reason_to_restart(num_workers) if records else ""
        if reason:
            self._on_note(f"{name}: was begun {reason}; starting anew")
        if reason or not records:
            self.draft.restart()
            return
        self.draft.resume()
        for record in records:
            self._writer.replay(record)
        last = records[-1]
        self._tally.sums = {name.removeprefix(_SUM): last[name] for name in last if name.startswith(_SUM)}
        self.bad = [BadImage(*image) for image in json.loads(bytes(last["bad"]))]
        self._num_committed = _num_samples(records)
        self._on_note(f"{name}: going on after {self._num_committed:,} of {len(self._samples):,} images")

    def _reason_to_restart(self, num_workers: int) -> str:
        """Why what was committed is of no use; empty if it is."""
        if self.draft.differences:
            return f"with other {', '.join(self.draft.differences)}"
        before = np.concatenate([record["identities"] for record in self.draft.records]).tolist()
        with closing(self._work(identify, num_workers, end=len(before))) as now:
            for index, (identity, its_own) in enumerate(zip(now, before, strict=True)):
                if identity != its_own:
                    return f"before {task(self._samples, index, self._encoding).item.name} changed"
        return ""

    def finish(self) -> Card | None:
        """Make the draft a whole file; returns its card, None where a card could not tell of such a file."""
        if not self._writer.num_samples:
            raise WriteError(f"{self.draft.target}: not one image of {self._samples.told['source']} could be stored")
        self._writer.finish()
        self.draft.sync()
        return self._card() if can_have_card(self._samples.layout) else None

    def _card(self) -> Card:
        told = dict(self._samples.told)
        if told.get("classes") is not None:
            told.setdefault("samples_per_class", samples_per_class(self._writer, len(told["classes"])))
        facts: dict[str, Any] = {"classes": None, "samples_per_class": None, "num_skipped": len(self.bad)}
        facts |= self._tally.facts(self._writer, self._encoding)
        facts |= {"num_bytes": self.draft.path.stat().st_size, "sha256": file_sha256(self.draft.path)}
        return Card(**(facts | told))

    def close(self) -> None:
        """Leave the draft to the next writer, and say so, or remove it if there is nothing to go on from."""
        records = self.draft.close()
        if records:
            done = f"{_num_samples(records):,} of {len(self._samples):,} images"
            self._on_note(f"{self.draft.path}: {done} are kept; the same command goes on from there")


def _num_samples(records: Sequence[Record]) -> int:
    """Samples of the source that were committed, bad ones included."""
    return sum(len(record["identities"]) for record in records)


_SUM = "sum "


def _terms(samples: Samples, encoding: Encoding) -> dict[str, Any]:
    """What a file depends on, beside the samples themselves."""
    return {
        "number of samples": len(samples),
        "fields": checksum(samples.layout.descriptors),
        **dataclasses.asdict(encoding),
        "further_sides": list(encoding.further_sides),
        "software": [_WRITING, pillow_version, *(features.version(name) for name in ("libjpeg_turbo", "jpg", "zlib"))],
    }

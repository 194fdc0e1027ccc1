"""What data sets are written from: samples, and the items that worker processes make them of."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.beton_writer import Layout, Value
from ffcv_datasets.picture import Encoding


class SourceError(ValueError):
    """A source that cannot be written from: says which, what is wrong and what to do."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be stored, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """A sample as the file will hold it."""

    values: Mapping[str, Value]
    """Its value in each field."""
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """For a mask its pixels per value, for boxes their number per category: what the card sums up."""


class Item(Protocol):
    """A sample before it is read: small enough to be sent to another process."""

    @property
    def name(self) -> str:
        """What a person knows the sample by."""

    def identity(self) -> str:
        """Another text whenever the sample may have become another one."""

    def store(self, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        """Read and encode it. Raises PictureError."""


class Samples(Protocol):
    """A data set to write."""

    @property
    def layout(self) -> Layout:
        """The fields of its samples."""

    @property
    def told(self) -> Mapping[str, Any]:
        """What its card says that cannot be counted: source, classes, recipe."""

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of how it was listed."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> Item:
        """Raises PictureError."""


def check_settings(settings: Mapping[str, str], known: Sequence[str], source: str) -> None:
    """Raises SourceError for a setting that the source does not know."""
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise SourceError(f"{source}: takes no {name}=...; {hint}")

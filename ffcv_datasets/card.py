"""A data set's card: what is in DATA.beton, kept beside it in DATA.card.json."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FORMAT_VERSION: Final = 1
_CHUNK_BYTES = 1 << 20
_MAX_CHARACTERS = 32 << 20

Count = Annotated[int, Field(ge=0)]
Pixels = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(ge=0, le=255)]


class CardError(ValueError):
    """A card that cannot be used, or that does not belong to the file beside it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Extent(_Strict):
    """Smallest, mean and largest side of the stored images, in pixels."""

    min: Pixels
    mean: Annotated[float, Field(ge=1)]
    max: Pixels


class LevelCard(_Strict):
    """A further level: the images stored at a smaller size as well."""

    max_side: Pixels
    num_images: Count
    """Those that are larger than it; the others are read from the first level."""
    num_bytes: Count
    """Their restart indexes included."""


class Card(_Strict):
    format_version: Literal[1] = FORMAT_VERSION
    source: str
    """Name of the folder that the images came from, or what drew them."""
    recipe: dict[str, int] | None = None
    """The numbers that a drawn data set follows from."""

    fields: tuple[str, ...] = ("image", "label")
    """Their names, in the file's order."""
    num_samples: Annotated[int, Field(ge=1)]
    num_skipped: Count = 0
    """Unreadable images that were left out (`--skip-bad`)."""
    classes: tuple[str, ...] | None
    """Names in label order; None where labels have no names."""
    samples_per_class: tuple[Count, ...] | None

    num_bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the whole .beton file."""

    width: Extent
    height: Extent
    channel_mean: tuple[Level, Level, Level]
    """Red, green, blue, in 0..255: over every pixel of every image, as it was before JPEG compression."""
    channel_std: tuple[Level, Level, Level]

    max_side: Pixels | None
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None
    """None where the images were stored by somebody else."""
    share_jpeg: Annotated[float, Field(ge=0, le=1)]
    num_jpeg: Count
    """Images stored as JPEG; the others are raw pixels."""
    num_kept: Count
    """JPEG files among them that were not compressed a second time: their pixels are those of the source."""

    image_bytes: Count | None = None
    """All images of the first level, restart indexes included; None in cards that did not count them."""
    further_levels: tuple[LevelCard, ...] = ()
    """Largest first."""
    num_indexed: Count = 0
    """Images with restart markers, of which the decoder skips what lies beside a crop."""
    index_bytes: Count = 0
    """All restart indexes, further levels' included."""
    has_checksums: bool = False
    """Whether the decoder checks the bytes of each image that it reads."""

    mask_bytes: Count | None = None
    """All masks; None where there are none."""
    pixels_per_value: dict[int, Count] | None = None
    """Over all masks; values that no pixel has are left out."""
    categories: tuple[str, ...] | None = None
    """Names of the boxes' categories, by number."""
    boxes_per_category: tuple[Count, ...] | None = None

    @model_validator(mode="after")
    def _counts_agree(self) -> Card:
        if (self.classes is None) != (self.samples_per_class is None):
            raise ValueError("classes and samples_per_class go together")
        if self.classes is not None and self.samples_per_class is not None:
            if len(self.classes) != len(self.samples_per_class):
                raise ValueError("samples_per_class has not one number per class")
            if sum(self.samples_per_class) != self.num_samples:
                raise ValueError("samples_per_class does not add up to num_samples")
        return self


def card_path(beton: Path) -> Path:
    """DATA.beton -> DATA.card.json"""
    return beton.with_suffix(".card.json")


def read_card(beton: Path) -> Card | None:
    """The card beside `beton`; None where there is none. Raises CardError if it cannot be understood."""
    path = card_path(beton)
    try:
        if not path.is_file():  # A pipe would be waited for.
            if path.exists():
                raise CardError(f"{path}: is not a file; delete it, or write the data again")
            return None
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read ({error})") from error
    if len(text) > _MAX_CHARACTERS:
        raise CardError(f"{path}: is longer than {_MAX_CHARACTERS:,} characters, as no card is; write the data again")
    try:
        version = json.loads(text, object_pairs_hook=_without_repeats)["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CardError(
                f"{path}: written by a newer Resolute (card format {version}, this one reads "
                f"{FORMAT_VERSION}); upgrade resolute, or write the data again with this one"
            )
        return Card.model_validate_json(text)
    except (ValidationError, json.JSONDecodeError, _RepeatError, RecursionError, KeyError, TypeError) as error:
        raise CardError(f"{path}: {_reason(error)}; write the data again, or delete the card") from error


def require_own(card: Card, beton: Path, *, num_samples: int) -> None:
    """Raises CardError if the card is another file's by its numbers, which costs nothing to see; `verify` reads all."""
    num_bytes = beton.stat().st_size
    if (card.num_samples, card.num_bytes) != (num_samples, num_bytes):
        raise CardError(
            f"{card_path(beton)}: tells of {card.num_samples:,} samples in {card.num_bytes:,} bytes, and the file has "
            f"{num_samples:,} in {num_bytes:,}: it is another file's card, or {_COPY_AGAIN}"
        )


def write_card(card: Card, beton: Path) -> None:
    """Put `card` beside `beton`, which this process alone writes: under a temporary name, synced, renamed."""
    path = card_path(beton)
    temporary = path.with_name(f"{path.name}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(card.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def verify(beton: Path, card: Card) -> None:
    """Compare the file with its card's checksum, reading all of it. Raises CardError if they differ."""
    num_bytes = beton.stat().st_size
    if num_bytes != card.num_bytes:
        raise CardError(f"{beton}: {num_bytes:,} bytes long, its card says {card.num_bytes:,}; {_COPY_AGAIN}")
    found = file_sha256(beton)
    if found != card.sha256:
        sums = f"SHA-256 is {found[:16]}..., its card says {card.sha256[:16]}..."
        raise CardError(f"{beton}: {sums}; {_COPY_AGAIN}")


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


_COPY_AGAIN = "the file was changed or damaged after it was written: copy or write it again"


class _RepeatError(ValueError):
    """A key stands twice in an object of JSON, of which readers may take the one or the other."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise _RepeatError("a key stands twice")
    return entries


def _reason(error: Exception) -> str:
    if isinstance(error, _RepeatError):
        return str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return "is not a card (a JSON object with a format_version)"

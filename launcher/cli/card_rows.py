"""A data set in words: one line, or rows of a name and a value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ffcv_datasets.beton import Beton
from ffcv_datasets.beton_format import JPEG
from ffcv_datasets.card import Card, Extent, card_path

_MAX_LISTED = 20


def describe(path: Path, card: Card | None) -> str:
    """What was written, in one line."""
    if card is None:
        return f"{path}: {path.stat().st_size / 1e6:,.1f} MB"
    skipped = f", {card.num_skipped:,} left out" if card.num_skipped else ""
    kept = f", {card.num_kept:,} not compressed again" if card.num_kept else ""
    return f"{path}: {_samples(card)}, {card.num_bytes / 1e6:,.1f} MB{kept}{skipped}"


def card_rows(beton: Path, card: Card) -> list[tuple[str, str]]:
    """What the card says."""
    skipped = f" ({card.num_skipped:,} unreadable ones were left out)" if card.num_skipped else ""
    resized = f"shrunk to {card.max_side} px" if card.max_side else "at their own size"
    return [
        ("file", str(beton)),
        ("source", card.source),
        ("samples", _samples(card) + skipped),
        *_target_rows(card),
        ("width", _side(card.width)),
        ("height", _side(card.height)),
        ("stored", f"{card.num_jpeg:,} JPEG, {card.num_samples - card.num_jpeg:,} raw, {resized}"),
        ("encoding", f"quality {card.jpeg_quality or 'unknown'}; {card.num_kept:,} files not compressed again"),
        *_level_rows(card),
        ("channel mean", "  ".join(f"{level:.3f}" for level in card.channel_mean)),
        ("channel std", "  ".join(f"{level:.3f}" for level in card.channel_std)),
        ("size", f"{card.num_bytes:,} bytes"),
        ("SHA-256", card.sha256),
    ]


def _level_rows(card: Card) -> list[tuple[str, str]]:
    """What the file has beside what FFCV reads, and what it costs."""
    rows: list[tuple[str, str]] = []
    if card.image_bytes is not None:
        rows.append(("image bytes", f"{card.image_bytes:,}"))
    for level in card.further_levels:
        share = f", {level.num_bytes / card.image_bytes:+.0%}" if card.image_bytes else ""
        rows.append((f"level {level.max_side} px", f"{level.num_images:,} images, {level.num_bytes:,} bytes{share}"))
    if card.num_indexed:
        rows.append(("restart markers", f"{card.num_indexed:,} images, index of {card.index_bytes:,} bytes"))
    rows.append(("checksums", "one per image and level, one for the tables" if card.has_checksums else "none"))
    return rows


def file_rows(beton: Beton) -> list[tuple[str, str]]:
    """What a file without a card tells itself, whatever its fields."""
    rows = [
        ("file", str(beton.path)),
        ("card", f"none ({card_path(beton.path).name})"),
        ("samples", f"{beton.num_samples:,}"),
        ("fields", ", ".join(f"{name} ({kind})" for name, kind in beton.fields.items())),
        ("size", f"{beton.path.stat().st_size:,} bytes"),
    ]
    for field, kind in beton.fields.items():
        if kind == "int" and beton.num_samples:
            values = beton.column(field)
            rows.append((field, f"{values.min()} .. {values.max()}"))
        if kind == "image" and beton.num_samples:
            images = beton.images(field)
            sides = (images.widths, images.heights)
            rows += [
                (f"{field} {name}", _side(Extent(min=int(side.min()), mean=float(side.mean()), max=int(side.max()))))
                for name, side in zip(("width", "height"), sides, strict=True)
            ]
            num_jpeg = int((images.mode == JPEG).sum())
            rows.append((f"{field} stored", f"{num_jpeg:,} JPEG, {beton.num_samples - num_jpeg:,} raw"))
            for side, level in zip(beton.footer.sides if beton.footer else (), beton.levels(field)[1:], strict=True):
                num_images, num_bytes = int((level["size"] > 0).sum()), int((level["size"] + level["index_size"]).sum())
                rows.append((f"{field} level {side} px", f"{num_images:,} images, {num_bytes:,} bytes"))
            num_indexed = int((beton.levels(field)[0]["index_size"] > 0).sum())
            rows.append((f"{field} restart markers", f"{num_indexed:,} images" if num_indexed else "none"))
    rows.append(("checksums", "one per image and level, one for the tables" if beton.footer else "none"))
    return rows


def _samples(card: Card) -> str:
    return f"{card.num_samples:,} images" + (f" of {len(card.classes)} classes" if card.classes else "")


def _target_rows(card: Card) -> list[tuple[str, str]]:
    """What each image is labelled with."""
    rows: list[tuple[str, str]] = []
    if card.classes is not None and card.samples_per_class is not None:
        rows.append(("classes", _counts(card.classes, card.samples_per_class)))
    elif card.mask_bytes is None and card.boxes_per_category is None:
        rows.append(("classes", "labels without names"))
    if card.pixels_per_value is not None:
        shares = [count / sum(card.pixels_per_value.values()) for count in card.pixels_per_value.values()]
        texts = [f"{value} {share:.1%}" for value, share in zip(card.pixels_per_value, shares, strict=True)]
        rows.append(("masks", f"{card.mask_bytes:,} bytes; pixels: {_listed(texts)}"))
    if card.boxes_per_category is not None:
        names = card.categories or tuple(map(str, range(len(card.boxes_per_category))))
        rows.append(("boxes", f"{sum(card.boxes_per_category):,}: {_counts(names, card.boxes_per_category)}"))
    return rows


def _counts(names: Sequence[str], counts: Sequence[int]) -> str:
    return _listed([f"{name} {count:,}" for name, count in zip(names, counts, strict=True)])


def _listed(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more


def _side(extent: Extent) -> str:
    return f"{extent.min} .. {extent.max} px, mean {extent.mean:.1f}"

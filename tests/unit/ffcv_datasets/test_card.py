from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ffcv_datasets.card import Card, CardError, Extent, card_path, read_card, require_own, verify, write_card

CONTENT = b"the content of a data file"


def a_card(**changes: Any) -> Card:
    fields: dict[str, Any] = {
        "source": "train",
        "num_samples": 3,
        "classes": ("cat", "dog"),
        "samples_per_class": (1, 2),
        "num_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "width": Extent(min=8, mean=9.5, max=11),
        "height": Extent(min=8, mean=8.0, max=8),
        "channel_mean": (1.0, 2.0, 255.0),
        "channel_std": (0.0, 2.0, 3.0),
        "max_side": None,
        "jpeg_quality": 90,
        "share_jpeg": 1.0,
        "num_jpeg": 3,
        "num_kept": 0,
    }
    return Card(**(fields | changes))


@pytest.fixture
def beton(tmp_path: Path) -> Path:
    path = tmp_path / "data.v2.beton"
    path.write_bytes(CONTENT)
    return path


def test_the_card_lies_beside_its_file(beton: Path) -> None:
    assert card_path(beton) == beton.parent / "data.v2.card.json"


def test_a_written_card_is_read_back_and_leaves_nothing_else(beton: Path) -> None:
    card = a_card(recipe={"seed": 1})
    write_card(card, beton)
    assert read_card(beton) == card
    assert sorted(path.name for path in beton.parent.iterdir()) == ["data.v2.beton", "data.v2.card.json"]


def test_a_file_without_a_card_has_none(beton: Path) -> None:
    assert read_card(beton) is None


def test_a_card_of_a_newer_version_asks_for_an_upgrade(beton: Path) -> None:
    write_card(a_card(), beton)
    content = json.loads(card_path(beton).read_text()) | {"format_version": 2, "unheard_of": True}
    card_path(beton).write_text(json.dumps(content))
    with pytest.raises(CardError, match=r"data\.v2\.card\.json: written by a newer Resolute .* upgrade resolute"):
        read_card(beton)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a card"),
        ("[1]", "is not a card"),
        ("[" * 100_000, "is not a card"),
        ('{"format_version": 1, "a": {"b": 1, "b": 2}}', "a key stands twice"),
        (a_card().model_dump_json().replace("255.0", "NaN"), "channel_mean"),
        (a_card().model_dump_json().replace("255.0", "Infinity"), "channel_mean"),
        (a_card().model_dump_json().replace("9.5", "1e999"), "width"),
        ("{}", "is not a card"),
        ('{"format_version": 0}', "format_version"),
        ('{"format_version": 1}', "source: Field required"),
        (a_card().model_dump_json().replace('"num_samples":3', '"num_samples":"3"'), "num_samples"),
        (a_card().model_dump_json().replace('"num_samples":3', '"num_samples":4'), "does not add up"),
        (a_card().model_dump_json().replace('"num_samples"', '"samples"'), "Field required"),
    ],
)
def test_what_is_not_a_card_is_named_with_the_reason(beton: Path, text: str, reason: str) -> None:
    card_path(beton).write_text(text)
    with pytest.raises(CardError, match=reason) as caught:
        read_card(beton)
    assert str(card_path(beton)) in str(caught.value)


def test_a_card_without_end_is_refused_and_a_pipe_is_not_waited_for(beton: Path) -> None:
    card_path(beton).touch()
    os.truncate(card_path(beton), 1 << 40)
    with pytest.raises(CardError, match="is longer than"):
        read_card(beton)
    card_path(beton).unlink()
    os.mkfifo(card_path(beton))
    with pytest.raises(CardError, match="is not a file"):
        read_card(beton)


@pytest.mark.parametrize(("num_samples", "content"), [(4, CONTENT), (3, CONTENT + b"!")])
def test_another_files_card_is_seen_by_its_numbers(beton: Path, num_samples: int, content: bytes) -> None:
    require_own(a_card(), beton, num_samples=3)
    beton.write_bytes(content)
    with pytest.raises(CardError, match=r"data\.v2\.card\.json: tells of 3 samples in 26 bytes, and the file has "):
        require_own(a_card(), beton, num_samples=num_samples)


@pytest.mark.parametrize("classes", [None, ("cat",)])
def test_classes_and_their_counts_agree(classes: tuple[str, ...] | None) -> None:
    with pytest.raises(ValueError, match="samples_per_class"):
        a_card(classes=classes)


def test_the_file_that_a_card_was_written_for_is_verified(beton: Path) -> None:
    verify(beton, a_card())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(CONTENT[:-1], "25 bytes long, its card says 26"), (CONTENT.replace(b"a", b"b"), "SHA-256 is ")],
)
def test_another_file_is_refused(beton: Path, content: bytes, sentence: str) -> None:
    beton.write_bytes(content)
    with pytest.raises(CardError, match=sentence):
        verify(beton, a_card())

from __future__ import annotations

from pathlib import Path

import pytest

from ffcv_datasets.labels import label_of, read_classes
from ffcv_datasets.samples import SourceError, check_settings

NUMBERS = {"cat": 0, "dog": 1, "5": 2}


@pytest.mark.parametrize(
    ("value", "numbers", "label"),
    [("dog", NUMBERS, 1), ("1", NUMBERS, 1), (2, NUMBERS, 2), ("5", NUMBERS, 2), ("7", None, 7), (0, None, 0)],
)
def test_a_label_is_a_number_or_the_name_of_a_class(value: object, numbers: dict[str, int] | None, label: int) -> None:
    assert label_of(value, numbers, where="x") == label


@pytest.mark.parametrize(
    ("value", "numbers", "sentence"),
    [
        ("3", NUMBERS, "x: the label 3 is not in 0 .. 2, the classes'"),
        (-1, NUMBERS, "x: the label -1 is not in 0 .. 2"),
        ("-1", None, "x: the label -1 is not 0 or more"),
        (2**63, None, "x: the label 9223372036854775808 is not 0 or more"),
        ("cow", NUMBERS, "x: the label 'cow' is none of the classes"),
        ("cow", None, "x: the label 'cow' is no number; name the classes by classes=FILE"),
        ("", None, "x: the label '' is no number"),
        (True, None, "x: the label True is no number"),
        (1.5, NUMBERS, "x: the label 1.5 is none of the classes"),
        (None, None, "x: the label None is no number"),
    ],
)
def test_other_labels_are_refused(value: object, numbers: dict[str, int] | None, sentence: str) -> None:
    with pytest.raises(SourceError) as caught:
        label_of(value, numbers, where="x")
    assert str(caught.value).startswith(sentence)


def test_classes_are_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("tench, Tinca tinca\n goldfish \n")
    assert read_classes(path) == ("tench, Tinca tinca", "goldfish")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"cat\ndog\ncat\n", "line 3 has the class 'cat' twice"),
        (b"caf\xe9\n", "are no UTF-8 text"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_of_classes_that_is_no_such_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("name", "hint"), [("lable", "did you mean label?"), ("xyz", "it takes label, image")])
def test_an_unknown_setting_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(SourceError, match=rf"^src: takes no {name}=\.\.\.; {hint}"):
        check_settings({name: "1"}, ("label", "image"), "src")

"""YAML of strangers: read as plain values, or refused in a sentence; it neither runs nor grows."""

from __future__ import annotations

import pytest

from launcher.job_text import TextError, read_text, unprintable_texts, write_text


def refusal(text: str) -> str:
    with pytest.raises(TextError) as caught:
        read_text(text)
    return caught.value.rule


def bomb(width: int, height: int, *, merge: bool = False) -> str:
    """`width` to the power of `height` values in a few hundred bytes."""
    first = "a0: &a0 {x: 1}\n" if merge else "a0: &a0 [1]\n"
    levels = []
    for level in range(height):
        aliases = ", ".join([f"*a{level}"] * width)
        levels.append(f"a{level + 1}: &a{level + 1} " + (f"{{<<: [{aliases}]}}\n" if merge else f"[{aliases}]\n"))
    return first + "".join(levels)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1E3", 1e3),
        ("-2.5e+1", -25.0),
        (".5e1", 5.0),
        ("'5e-4'", "5e-4"),
        ("08", "08"),
        ("12", 12),
        ("e5", "e5"),
        ("5e", "5e"),
        ("2e3f", "2e3f"),
    ],
)
def test_a_number_with_an_exponent_is_a_number(text: str, value: object) -> None:
    read = read_text(f"[{text}]").value
    assert read == [value]
    assert type(read[0]) is type(value)
    assert read_text(write_text([value])).value == [value]


def test_keys_are_told_with_their_lines_and_those_that_stand_twice() -> None:
    read = read_text("a: 1\nb:\n  c: [1, 2]\n  c: 3\n")
    assert read.value == {"a": 1, "b": {"c": 3}}
    assert read.lines[("b", "c", 1)] == 3
    assert read.repeated == ((("b", "c"), 4, 3),)


@pytest.mark.parametrize("merge", [False, True], ids=["lists", "merge keys"])
def test_aliases_that_multiply_are_refused_before_they_do(merge: bool) -> None:
    assert "100,000 values once its aliases are written out" in refusal(bomb(9, 30, merge=merge))


def test_aliases_in_reason_are_read() -> None:
    assert read_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\n").value["b"] == {"x": 1, "y": 2}
    assert read_text(bomb(9, 3)).value["a1"] == [[1]] * 9


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 3000, "- " * 5000, "a: &x [*x]\nb: " + "[" * 2000])
def test_depth_without_reason_is_refused(text: str) -> None:
    assert refusal(text) == "nests too deeply"


def test_length_without_reason_is_refused_unread() -> None:
    assert "is longer than 100,000 characters" in refusal("a" * 100_001)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:os", "!!js/function", "!x"]
)
def test_tags_that_are_no_plain_values_are_refused(tag: str) -> None:
    assert "could not determine a constructor" in refusal(f"{tag} [touch /tmp/owned]")


def test_unprintable_texts_are_found_at_any_depth_in_keys_too_and_once_where_a_list_holds_itself() -> None:
    value: list[object] = ["fine", {"a": "\x1b", "\x9b": [0, "\u202e"]}]
    value.append(value)
    assert list(unprintable_texts(value)) == [(1, "a"), (1, "\x9b"), (1, "\x9b", 1)]

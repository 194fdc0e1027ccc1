"""A user's runs are remembered wherever they lie, and nothing depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.slurm.run_index import index_file, remember, remembered


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_runs_are_remembered_once_each_while_their_directories_exist(tmp_path: Path) -> None:
    first, second = tmp_path / "first run", tmp_path / "a\nb"
    for root in (first, second):
        root.mkdir()
        remember(root)
        remember(root)
    remember(tmp_path / "gone")
    assert remembered() == [first, second]
    first.rmdir()
    assert remembered() == [second]


def test_it_lies_where_the_xdg_specification_says(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_file() == state / "resolute" / "runs.jsonl"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for meaningless in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", meaningless)
        assert index_file() == tmp_path / "home" / ".local" / "state" / "resolute" / "runs.jsonl"


def test_a_home_that_cannot_be_written_or_read_is_done_without(state: Path, tmp_path: Path) -> None:
    state.write_text("a file where a folder should be")
    remember(tmp_path)
    assert remembered() == []


def test_lines_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    remember(tmp_path)
    with index_file().open("ab") as file:
        file.write(b'\xff\n{"a": 1}\n"relative"\n["/"]\n"/tor')
    assert remembered() == [tmp_path]

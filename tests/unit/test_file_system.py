"""What a run rests on in a file system: a sound one passes, and each promise that is broken is told."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.file_system import lock_trouble_in, look_at, trouble_in
from launcher.run_directory import RunDirectoryError, open_run_directory


def refused(*_arguments: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_a_sound_file_system_keeps_every_promise_and_nothing_stays(tmp_path: Path) -> None:
    facts = look_at(tmp_path)
    assert (facts.rename, facts.exclusive, facts.flush, facts.listing, facts.locks) == ("", "", "", "", "")
    assert abs(facts.clock_ahead_s) < 3600
    assert facts.free_bytes > 0
    assert (trouble_in(tmp_path), lock_trouble_in(tmp_path)) == ("", "")
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_does_not_rename_over_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", refused)
    assert look_at(tmp_path).rename == "to rename a file over another one is refused (Function not implemented)"
    assert trouble_in(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_overwrites_directories_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda *_paths: None)
    assert look_at(tmp_path).rename == "a directory was renamed over another one that is not empty"


def test_a_file_system_that_makes_a_file_twice_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", without_exclusion(os.open))
    assert look_at(tmp_path).exclusive == "a file could be made exclusively (O_EXCL) though it was there"
    assert trouble_in(tmp_path)


def without_exclusion(honest: Callable[..., int]) -> Callable[..., int]:
    def open_any(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        return honest(path, flags & ~os.O_EXCL, *rest, **named)

    return open_any


def test_what_cannot_be_flushed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refused)
    assert look_at(tmp_path).flush == "to flush a file is refused (Function not implemented)"


def test_a_listing_that_lags_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda _folder: [])
    assert look_at(tmp_path).listing == "a new file is not listed at once"


def test_a_file_system_without_locks_is_told_and_holds_a_run_of_one_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Lustre is without -o flock."""
    monkeypatch.setattr(fcntl, "flock", refused)
    told = "to lock a file (flock) is refused (Function not implemented)"
    assert (look_at(tmp_path).locks, lock_trouble_in(tmp_path), trouble_in(tmp_path)) == (told, told, "")


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        look_at(tmp_path / "gone")


def test_a_run_does_not_start_where_it_could_lose_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(RunDirectoryError) as caught, open_run_directory(tmp_path / "run"):
        pass
    assert str(caught.value).startswith(
        f"{tmp_path}/run is on a file system that cannot hold a run: to rename a file over another one is refused"
    )
    assert "resolute doctor" in str(caught.value)

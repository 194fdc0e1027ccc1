"""Writes that survive a crash."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import failpoints
from launcher.durable import (
    DiskFullError,
    make_directory,
    naming_full_disk,
    prepared_file,
    remove_temporaries,
    require_space,
    write_atomically,
)
from launcher.paths import temporary

ROOT = Path(__file__).parents[2]


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    write_atomically(path, "old")
    write_atomically(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
    assert os.listdir(tmp_path) == ["job.yaml"]


def test_an_error_while_preparing_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("old")

    def fail() -> None:
        with prepared_file(path, num_bytes=3) as draft:
            draft.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_content_is_on_disk_before_the_rename_and_the_rename_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        calls.append(("replace", target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    path = tmp_path / "plan.json"
    write_atomically(path, "{}")
    draft = temporary(path, pid=os.getpid())
    assert calls == [("fsync", draft), ("replace", path), ("fsync", tmp_path)]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_want_of_space_is_told_with_what_is_needed_free_and_where(tmp_path: Path, error: Exception) -> None:
    place = tmp_path / "not-there-yet" / "file"
    with pytest.raises(DiskFullError) as caught, naming_full_disk(place, 12_300_000):
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith(f"{place}: the disk or your quota is full: 12.3 MB are needed")
    assert "MB free" in str(caught.value)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    for error in (OSError(errno.EIO, "Input/output error"), RuntimeError("(os error 5)"), KeyError("x")):
        with pytest.raises(type(error)) as caught, naming_full_disk(tmp_path, 1):
            raise error
        assert caught.value is error


def test_disk_full_crosses_process_borders_as_itself() -> None:
    error = pickle.loads(pickle.dumps(DiskFullError("x: full")))
    assert (type(error), str(error)) == (DiskFullError, "x: full")


def test_more_than_the_disk_has_is_refused_beforehand(tmp_path: Path) -> None:
    require_space(tmp_path / "checkpoints", 1)
    with pytest.raises(DiskFullError, match="are needed"):
        require_space(tmp_path / "checkpoints", 1 << 60)


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    half = temporary(tmp_path / "e00001-s000000000", pid=1)
    (half / "inner").mkdir(parents=True)
    temporary(tmp_path / "job.yaml", pid=1).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    temporary(tmp_path / "link", pid=1).symlink_to(outside)
    (tmp_path / "job.yaml").touch()
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["job.yaml", "outside"]
    assert (outside / "precious").exists()
    remove_temporaries(tmp_path / "absent")


def test_directories_are_made_with_parents_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_directory(path)
    make_directory(path)
    assert path.is_dir()


@pytest.mark.parametrize(("point", "content"), [("file.before_rename", "old"), ("file.after_rename", "new")])
def test_a_process_killed_at_the_rename_leaves_one_whole_file(tmp_path: Path, point: str, content: str) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    script = "import sys, pathlib, launcher.durable as d; d.write_atomically(pathlib.Path(sys.argv[1]), 'new')"
    environment = {**os.environ, failpoints.VARIABLE: f"{point}:1"}
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == content
    remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["summary.json"]

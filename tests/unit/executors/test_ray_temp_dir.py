"""What killed runs left on a host's disk goes with the next one's start; what anybody may still use stays."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.executors.ray_keeper import remove
from launcher.executors.ray_temp_dir import make_temp_dir

_MAKE = "from launcher.executors.ray_temp_dir import make_temp_dir; print(make_temp_dir())"
_REMOVE_AND_DIE = """
import os, sys
from launcher.executors.ray_keeper import remove
from launcher.executors.ray_temp_dir import make_temp_dir

left = int(sys.argv[1])


def die_in_time(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir"):
        if left == 0:
            os._exit(9)
        left -= 1


folder = make_temp_dir()
(folder / "ray").mkdir()
for name in ("ray/a", "ray/b", "z.log"):
    (folder / name).touch()
sys.addaudithook(die_in_time)
remove(folder)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short, as a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


def left_by_a_dead_process() -> Path:
    done = subprocess.run([sys.executable, "-c", _MAKE], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_what_a_dead_process_left_is_removed(base: Path) -> None:
    left = left_by_a_dead_process()
    (left / "ray").mkdir()
    (left / "ray" / "log").write_text("words")
    made = make_temp_dir()
    assert list(base.iterdir()) == [made]


def test_what_was_killed_while_it_removed_its_own_is_removed_to_the_end(base: Path) -> None:
    for kept in range(20):
        done = subprocess.run([sys.executable, "-c", _REMOVE_AND_DIE, str(kept)], check=False)
        made = make_temp_dir()
        left = [folder for folder in base.iterdir() if folder != made]
        assert not [folder for folder in left if any(folder.iterdir())], f"killed before removal {kept}"
        for folder in (made, *left):  # At worst an empty one.
            remove(folder)
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert kept == 6, "four files, two directories"


def test_what_belongs_to_a_living_process_stays(base: Path) -> None:
    ours = {make_temp_dir(), make_temp_dir()}
    assert set(base.iterdir()) == ours


def test_a_directory_that_a_process_works_in_stays(base: Path) -> None:
    """As that of a keeper that outlives its driver and saves Ray's logs."""
    left = left_by_a_dead_process()
    with subprocess.Popen(["sleep", "60"], cwd=left) as keeper:
        make_temp_dir()
        assert left.is_dir()
        keeper.kill()
    make_temp_dir()
    assert not left.exists()


@pytest.mark.parametrize("owner", [None, b"", b"not ours"])
def test_what_does_not_say_whose_it_is_stays(base: Path, owner: bytes | None) -> None:
    foreign = base / "resolute-notes"
    foreign.mkdir()
    if owner is not None:
        (foreign / "owner.json").write_bytes(owner)
    make_temp_dir()
    assert foreign.is_dir()

"""A full disk: the earlier checkpoint survives, nothing is left of the new one, and the error says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from launcher import durable
from launcher.checkpoint import Parts, export_model, load, newest_valid, save, scan
from launcher.durable import DiskFullError
from launcher.event_log import EventLog, read_events
from launcher.plan import Position


def parts_of(value: float) -> Parts:
    return {"model": {"weight": torch.full((3, 5), value)}, "optimizer": {"weight/momentum_buffer": torch.ones(3, 5)}}


def weight_of(checkpoints: Path) -> float:
    """The weight in the newest valid checkpoint."""
    newest = newest_valid(checkpoints).newest
    assert newest is not None
    return load(newest)[0]["model"]["weight"][0, 0].item()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB and 16 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=16", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"A full disk was NOT tested: mounting a small one takes root ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_that_cannot_fit_is_refused_before_anything_is_written(small_disk: Path) -> None:
    checkpoints = small_disk / "checkpoints"
    save(checkpoints, Position(1), parts_of(1), {})
    large = {"model": {"weight": torch.zeros(1 << 20)}}
    with pytest.raises(DiskFullError) as caught:
        save(checkpoints, Position(2), large, {})
    assert str(caught.value).startswith(
        f"{checkpoints}/e00002-s000000000: the disk or your quota is full: 4.3 MB are needed, "
        f"and the file system reports 1.0 MB free."
    )
    assert os.listdir(checkpoints) == ["e00001-s000000000"]
    assert weight_of(checkpoints) == 1


@pytest.mark.parametrize("files_left", range(4))
def test_a_disk_that_fills_up_at_any_file_leaves_the_earlier_checkpoint(small_disk: Path, files_left: int) -> None:
    checkpoints = small_disk / "checkpoints"
    save(checkpoints, Position(1), parts_of(1), {})
    for number in range(os.statvfs(small_disk).f_ffree - files_left):
        (small_disk / str(number)).touch()
    with pytest.raises(DiskFullError, match="What was written before is intact"):
        save(checkpoints, Position(2), parts_of(2), {})
    assert os.listdir(checkpoints) == ["e00001-s000000000"]
    assert weight_of(checkpoints) == 1
    for path in small_disk.glob("[0-9]*"):
        path.unlink()
    save(checkpoints, Position(2), parts_of(2), {})
    assert weight_of(checkpoints) == 2


@pytest.mark.parametrize("kilobytes_left", [0, 4, 8, 100, 200, 204, 208])
def test_a_quota_that_strikes_while_writing_leaves_the_earlier_checkpoint(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, kilobytes_left: int
) -> None:
    checkpoints = small_disk / "checkpoints"
    parts = {name: {"x": torch.ones(25_600)} for name in ("model", "optimizer")}
    save(checkpoints, Position(1), parts, {})
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - kilobytes_left * 1024))
    assert shutil.disk_usage(small_disk).free == kilobytes_left * 1024
    # A file system says nothing of a user's quota: as if it had room for all.
    monkeypatch.setattr(durable, "free_bytes", lambda _path: 1 << 40)
    with pytest.raises(DiskFullError) as caught:
        save(checkpoints, Position(2), parts, {})
    assert caught.value.__cause__ is not None
    assert os.listdir(checkpoints) == ["e00001-s000000000"]
    assert newest_valid(checkpoints).newest == scan(checkpoints).valid[0]
    (small_disk / "filler").unlink()
    assert save(checkpoints, Position(2), parts, {}) == newest_valid(checkpoints).newest


def test_a_full_disk_keeps_the_exported_model_and_the_events(small_disk: Path) -> None:
    small, large = nn.Linear(2, 2), nn.Linear(700, 700)
    export_model(small_disk / "model.safetensors", small, {})
    log = EventLog(small_disk / "events.jsonl")
    log.append({"event": "before"})
    with pytest.raises(DiskFullError):
        export_model(small_disk / "model.safetensors", large, {})
    assert load_file(small_disk / "model.safetensors")["weight"].equal(small.weight)
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(DiskFullError):
        log.append({"event": "lost", "text": "x" * 10_000})
    (small_disk / "filler").unlink()
    log.append({"event": "after"})
    log.close()
    assert [event["event"] for event in read_events(log.path)] == ["before", "after"]

"""What is no valid checkpoint is refused with a sentence, and the one before is taken."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launcher.checkpoint import Parts, load, newest_valid, save
from launcher.manifest import CheckpointError, _seal, describe_part, sealed, verify
from launcher.plan import Position


def parts_of(value: float) -> Parts:
    return {"model": {"weight": torch.full((3, 5), value)}, "optimizer": {"weight/momentum_buffer": torch.ones(3, 5)}}


def weight_of(checkpoints: Path) -> float:
    """The weight in the newest valid checkpoint."""
    newest = newest_valid(checkpoints).newest
    assert newest is not None
    return load(newest)[0]["model"]["weight"][0, 0].item()


def reason(checkpoint: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        verify(checkpoint)
    return str(caught.value)


def forge(directory: Path, **entries: object) -> Path:
    """A checkpoint by a stranger who knows how to seal a manifest."""
    directory.mkdir(exist_ok=True)
    honest = {
        "format": "resolute-checkpoint",
        "format_version": 1,
        "epoch": 1,
        "samples_done": 0,
        "parts": {},
        "facts": {},
    }
    (directory / "manifest.json").write_bytes(sealed(honest | entries))
    return directory


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def link_outside(path: Path) -> None:
    outside = path.parents[2] / "outside"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (Path.unlink, "is missing"),
        (truncate, "bytes long instead of|is damaged|was changed"),
        (link_outside, "is a symbolic link; only plain files are read"),
        (pipe, "is not a file; only plain files are read"),
        (directory, "is not a file; only plain files are read"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_taken(
    tmp_path: Path, file: str, damage: Callable[[Path], None], sentence: str
) -> None:
    checkpoints = tmp_path / "checkpoints"
    save(checkpoints, Position(1), parts_of(1), {})
    newest = save(checkpoints, Position(2), parts_of(2), {})
    damage(newest.path / file)
    found = newest_valid(checkpoints)
    assert found.newest is not None
    assert found.newest.position == Position(1)
    (rejected,) = found.rejected
    assert rejected.path == newest.path
    assert rejected.reason.startswith(f"e00002-s000000000: {file} ")
    assert any(part in rejected.reason for part in sentence.split("|"))


def test_a_truncated_file_is_told_with_its_lengths(tmp_path: Path) -> None:
    info = save(tmp_path, Position(1), parts_of(1), {})
    truncate(info.path / "model.safetensors")
    size = info.parts["model"].size_bytes
    told = f"e00001-s000000000: model.safetensors is {size - 1} bytes long instead of {size}"
    assert reason(info.path) == told


def test_every_one_of_a_thousand_bit_flips_and_truncations_is_found(tmp_path: Path) -> None:
    save(tmp_path, Position(1), parts_of(1), {})
    newest = save(tmp_path, Position(2), parts_of(2), {"top1": 0.75, "plan_fingerprint": "0123abcd"})
    files = sorted(newest.path.iterdir())
    chance = random.Random(0)
    for turn in range(1000):
        path = files[turn % len(files)]
        content = path.read_bytes()
        place = chance.randrange(len(content))
        if turn % 3:
            damaged = bytearray(content)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
        else:
            path.write_bytes(content[:place])
        assert weight_of(tmp_path) == 1, (path.name, turn, place)
        path.write_bytes(content)
    assert weight_of(tmp_path) == 2


def test_strangers_among_the_checkpoints_are_named_and_passed_over(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    own = save(checkpoints, Position(1), parts_of(1), {})
    elsewhere = save(tmp_path / "other", Position(9), parts_of(9), {})
    (checkpoints / "e00009-s000000000").symlink_to(elsewhere.path)
    (checkpoints / "e00008-s000000000").touch()
    (checkpoints / "e00007-s000000000").mkdir()
    shutil.copytree(elsewhere.path, checkpoints / "e00006-s000000000")
    (checkpoints / "latest").symlink_to(own.path)
    found = newest_valid(checkpoints)
    assert found.newest == own
    assert [rejected.reason for rejected in found.rejected] == [
        "latest is not the name of a checkpoint",
        "e00009-s000000000 is a link or a file; only a directory of its own is read",
        "e00008-s000000000 is a link or a file; only a directory of its own is read",
        "e00007-s000000000: manifest.json is missing",
        "e00006-s000000000 holds the state of e00009-s000000000: it has been renamed",
    ]


def test_another_runs_checkpoint_is_refused_unless_the_run_does_not_matter(tmp_path: Path) -> None:
    save(tmp_path, Position(1), parts_of(1), {"run": "ours"})
    save(tmp_path, Position(2), parts_of(2), {"run": "theirs"})
    found = newest_valid(tmp_path, run="ours")
    assert found.newest is not None
    assert found.newest.position == Position(1)
    (rejected,) = found.rejected
    assert rejected.reason == "e00002-s000000000 was saved by another run; --accept-changes takes it all the same"
    assert weight_of(tmp_path) == 2


def test_a_later_releases_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    info = save(tmp_path, Position(1), parts_of(1), {})
    manifest = info.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert reason(info.path) == (
        "e00001-s000000000: manifest.json has format version 2, and this release reads 1: "
        "resume with the release that wrote it"
    )


def test_a_manifest_that_says_a_thing_twice_is_refused(tmp_path: Path) -> None:
    directory = forge(tmp_path / "e00001-s000000000")
    honest = (directory / "manifest.json").read_bytes().partition(b',\n "manifest_sha256"')[0]
    body = honest.replace(b'"epoch": 1', b'"epoch": 9,\n "epoch": 1')
    (directory / "manifest.json").write_bytes(body + _seal(body))
    assert reason(directory) == "e00001-s000000000: manifest.json is damaged, or not ours"


def test_a_manifest_of_a_size_that_none_has_is_refused_unread(tmp_path: Path) -> None:
    directory = forge(tmp_path / "e00001-s000000000")
    with (directory / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # Sparse: reading it would take all memory.
    told = "e00001-s000000000: manifest.json is 1,099,511,627,776 bytes long, as none of ours is"
    assert reason(directory) == told


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"format_version": ', "\xff"])
def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "e00001-s000000000").mkdir()
    (tmp_path / "e00001-s000000000" / "manifest.json").write_text(text, encoding="latin-1")
    assert reason(tmp_path / "e00001-s000000000") == "e00001-s000000000: manifest.json is damaged, or not ours"


@pytest.mark.parametrize(
    "part", ["../outside", "/etc/passwd", "a/b", "", ".hidden", "model.safetensors/../../x", "x" * 65, "model\n"]
)
def test_a_part_whose_name_leads_elsewhere_is_refused(tmp_path: Path, part: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "outside.safetensors")
    entry = describe_part(tmp_path / "outside.safetensors", {}).model_dump()
    forged = forge(tmp_path / "e00001-s000000000", parts={part: entry})
    assert "manifest.json is not ours: parts." in reason(forged)


@pytest.mark.parametrize(
    "entries",
    [
        {"epoch": "1"},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": float("nan")},
        {"samples_done": float("inf")},
        {"format": "someone-else's"},
        {"facts": []},
        {"surplus": 1},
        {"parts": {"model": {"size_bytes": 1}}},
    ],
)
def test_a_manifest_of_another_shape_is_refused(tmp_path: Path, entries: dict[str, object]) -> None:
    directory = tmp_path / "e00001-s000000000"
    verify(forge(directory))
    forge(directory, **entries)
    assert "manifest.json is not ours: " in reason(directory)


def test_a_file_with_the_right_sum_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "e00001-s000000000"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(pickle.dumps({"weight": 1}))
    forge(directory, parts={"model": describe_part(directory / "model.safetensors", {}).model_dump()})
    assert "model.safetensors is not a safetensors file" in reason(directory)


def test_a_tie_to_nothing_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "e00001-s000000000"
    directory.mkdir()
    save_file({"weight": torch.zeros(1)}, directory / "model.safetensors")
    entry = describe_part(directory / "model.safetensors", {"head": "absent"}).model_dump()
    forge(directory, parts={"model": entry})
    assert reason(directory).endswith("model.safetensors lacks absent, to which other names are tied")

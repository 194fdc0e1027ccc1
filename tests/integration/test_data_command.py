"""`resolute data` as a person calls it: what it prints, its exit codes, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import card_path, read_card

ROOT = Path(__file__).parents[2]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "launcher", "data", *map(str, arguments)]


def data(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two splits of two classes, and a file that is no image."""
    root = tmp_path / "pets"
    for split, num_images in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(num_images):
                Image.new("RGB", (60, 40), (index, 0, 0)).save(root / split / name / f"{index}.jpg")
    (root / "train" / "cat" / "notes.txt").touch()
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "pets.beton"


def test_both_splits_are_written_with_cards(tree: Path, out: Path) -> None:
    run = data("write", tree, out)
    assert run.returncode == 0, run.stderr
    assert files_in(out.parent) == ["pets.train.beton", "pets.train.card.json", "pets.val.beton", "pets.val.card.json"]
    assert run.stdout.splitlines()[-2:] == [
        f"{out.parent}/pets.train.beton: 12 images of 2 classes, 16.8 MB, 12 not compressed again",
        f"{out.parent}/pets.val.beton: 4 images of 2 classes, 16.8 MB, 4 not compressed again",
    ]
    assert run.stdout.splitlines()[0] == "2 of 16 images"
    assert run.stderr == "ignored, being no images by their names: 1 files\n"
    with Beton(out.with_suffix(".val.beton")) as beton:
        assert beton.labels().tolist() == [0, 0, 1, 1]


def test_options_reach_the_file(tree: Path, out: Path) -> None:
    options = ["--max-side", "30", "--jpeg-quality", "70", "--share-jpeg", "0.5", "--workers", "3"]
    assert data("write", tree / "train", out, *options).returncode == 0
    card = read_card(out)
    assert card is not None
    assert (card.max_side, card.width.max, card.height.max) == (30, 30, 20)
    assert (card.jpeg_quality, card.share_jpeg, card.num_jpeg, card.num_kept) == (70, 0.5, 6, 0)


def test_bad_images_end_the_command_or_are_left_out(tree: Path, out: Path) -> None:
    (tree / "train" / "cat" / "0.jpg").write_bytes(b"")
    (tree / "val" / "dog" / "1.jpg").write_bytes(b"<html>")
    run = data("write", tree, out)
    assert run.returncode == 2
    assert run.stderr.splitlines()[:2] == [
        f"{tree}/train/cat/0.jpg: the file is empty",
        f"{tree}/val/dog/1.jpg: not an image of a known kind (JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM)",
    ]
    assert run.stderr.splitlines()[-1].startswith("resolute: 2 images cannot be stored;")
    assert files_in(out.parent) == []
    run = data("write", tree, out, "--skip-bad")
    assert run.returncode == 0
    assert run.stderr.count("left out: ") == 2
    assert "11 images of 2 classes" in run.stdout


def test_wrong_input_is_one_sentence_and_exit_code_2(tree: Path, out: Path) -> None:
    for source, target, sentence in [
        (tree / "nothing", out, "there is no such folder"),
        (tree / "train" / "cat", out, "lies outside of any class"),
        (tree, out.with_suffix(".bin"), "must end in .beton"),
    ]:
        run = data("write", source, target)
        assert run.returncode == 2
        assert sentence in run.stderr
        assert len(run.stderr.splitlines()) == 1
    out.write_bytes(b"precious")
    run = data("write", tree / "train", out)
    assert (run.returncode, out.read_bytes()) == (2, b"precious")
    assert data("write", tree / "train", out, "--force").returncode == 0


@pytest.fixture
def long_tree(tmp_path: Path) -> Path:
    """Many names of one image that takes a while to shrink: seconds for all of them, and a stop needs an instant."""
    folder = tmp_path / "many" / "noise"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save(folder / "0.jpg")
    for number in range(1, 3000):
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    return folder.parent


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_write_leaves_the_old_file_and_goes_on_when_called_again(
    long_tree: Path, out: Path, sent: signal.Signals
) -> None:
    out.write_bytes(b"old")
    shrinking = ("write", long_tree, out, "--force", "--max-side", "250")
    process = subprocess.Popen(command(*shrinking), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    journal = out.with_name("pets.beton.journal")
    while not (journal.exists() and journal.stat().st_size > 5000) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    kept, stopped = errors.splitlines()
    assert kept.startswith(f"{out}.partial: ")
    assert kept.endswith(" of 3,000 images are kept; the same command goes on from there")
    assert stopped == f"stopped: {out} is as it was before"
    assert files_in(out.parent) == ["pets.beton", "pets.beton.journal", "pets.beton.partial"]
    assert out.read_bytes() == b"old"
    run = data(*shrinking)
    assert run.returncode == 0
    assert run.stderr.startswith("pets.beton.partial: going on after ")
    assert files_in(out.parent) == ["pets.beton", "pets.card.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"A full disk was NOT tested: mounting a small one takes root ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_apart_and_the_write_goes_on_when_there_is_room(tree: Path, small_disk: Path) -> None:
    target = small_disk / "pets.beton"
    run = data("write", tree / "train", target)
    assert run.returncode == 5
    kept, full = run.stderr.splitlines()
    assert kept == f"{target}.partial: 12 of 12 images are kept; the same command goes on from there"
    assert "the disk or your quota is full; pets.beton is as it was before. Make room" in full
    assert files_in(small_disk) == ["pets.beton.journal", "pets.beton.partial"]
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert data("write", tree / "train", target).returncode == 0
    assert files_in(small_disk) == ["pets.beton", "pets.card.json"]


def test_a_disk_that_is_full_at_once_is_left_clean(long_tree: Path, small_disk: Path) -> None:
    run = data("write", long_tree, small_disk / "x.beton")
    assert run.returncode == 5
    assert len(run.stderr.splitlines()) == 1
    assert files_in(small_disk) == []


def test_shards_are_written_by_a_pattern(tree: Path, out: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for number in range(3):
        with tarfile.open(tmp_path / f"a-{number:03}.tar", "w") as archive:
            for label, name in enumerate(("cat", "dog")):
                archive.add(tree / "train" / name / f"{number}.jpg", f"{number}{name}.jpg")
                (tmp_path / "cls").write_text(str(label))
                archive.add(tmp_path / "cls", f"{number}{name}.cls")
    run = data("write", tmp_path / "a-{000..002}.tar", out, f"classes={names}")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith(f"{out}: 6 images of 2 classes, ")
    names.write_text("cat\n")
    run = data("write", tmp_path / "a-{000..002}.tar", out, f"classes={names}", "--force")
    assert run.returncode == 2
    assert run.stderr.endswith("a-000.tar: sample '0dog': the label 1 is not in 0 .. 0, the classes'\n")


def test_masks_and_boxes_are_written_told_and_verified(tree: Path, out: Path, tmp_path: Path) -> None:
    images, masks = tree / "train" / "cat", tmp_path / "masks"
    masks.mkdir()
    entries = [{"id": index, "file_name": f"{index}.jpg", "width": 60, "height": 40} for index in range(6)]
    for index in range(6):
        Image.new("L", (60, 40), 3 * (index % 2)).save(masks / f"{index}.png")
    box = {"id": 1, "image_id": 4, "category_id": 9, "bbox": [1, 2, 3, 4]}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"images": entries, "annotations": [box], "categories": [{"id": 9, "name": "ear"}]}))
    run = data("write", images, out, f"masks={masks}", f"boxes={boxes}", "--levels", "60,30")
    assert run.returncode == 0, run.stderr
    assert run.stderr == "ignored, being no images by their names: 1 files\n"
    run = data("info", out)
    for part in ("bytes; pixels: 0 50.0%, 3 50.0%", "1: ear 1", "level 30 px"):
        assert part in run.stdout
    assert data("verify", out).returncode == 0
    Image.new("L", (40, 60)).save(masks / "2.png")
    run = data("write", images, out, f"masks={masks}", "--force")
    assert run.returncode == 2
    assert run.stderr.splitlines()[0] == f"{images}/2.jpg: its mask is 40 x 60 px, the image 60 x 40 px"


def test_settings_that_a_source_does_not_know_are_refused(tree: Path, out: Path) -> None:
    run = data("write", tree, out, "mask=x")
    assert run.returncode == 2
    assert run.stderr == f"resolute: {tree}: takes no mask=...; did you mean masks?\n"
    run = data("write", tree / "a-0.tar", out, tree / "a-1.tar")
    assert run.returncode == 2
    assert "is not KEY=VALUE; put a pattern of several files into quotes" in " ".join(
        run.stderr.replace("│", "").split()
    )


def test_info_shows_the_card_and_verifies_the_file(tree: Path, out: Path) -> None:
    data("write", tree / "train", out)
    run = data("info", out, "--verify")
    assert run.returncode == 0
    for part in ("12 images of 2 classes", "cat 6, dog 6", "60 .. 60 px", "12 JPEG, 0 raw", "verified:"):
        assert part in run.stdout
    content = bytearray(out.read_bytes())
    content[len(content) // 2] ^= 1
    out.write_bytes(content)
    assert data("info", out).returncode == 0
    run = data("info", out, "--verify")
    assert run.returncode == 2
    assert run.stderr.startswith(f"resolute: {out}: SHA-256 is ")


def test_info_without_a_card_shows_what_the_file_tells(tree: Path, out: Path) -> None:
    data("write", tree / "train", out)
    card_path(out).unlink()
    run = data("info", out)
    assert run.returncode == 0
    for part in ("none (pets.card.json)", "image (image), label (int)", "0 .. 1", "12 JPEG, 0 raw"):
        assert part in run.stdout
    run = data("info", out, "--verify")
    assert run.returncode == 2
    assert "cannot be verified without pets.card.json" in run.stderr


def test_info_on_what_is_no_data_set_says_so(tree: Path, out: Path) -> None:
    for path in (out, tree / "train" / "cat" / "notes.txt"):
        run = data("info", path)
        assert run.returncode == 2
        assert run.stderr.startswith("resolute: ")


def test_a_card_of_another_file_is_noticed(tree: Path, out: Path) -> None:
    data("write", tree, out)
    train, val = out.with_suffix(".train.beton"), out.with_suffix(".val.beton")
    val.replace(train)
    run = data("info", train)
    assert run.returncode == 2
    assert "holds 4 samples, its card says 12" in run.stderr


def test_drawing_twice_draws_once(tmp_path: Path) -> None:
    numbers = ["--num-train", "30", "--num-val", "10", "--size", "16"]
    folder = tmp_path / "a" / "demo"
    assert data("draw", folder, *numbers).returncode == 0
    assert files_in(folder) == ["train.beton", "train.card.json", "val.beton", "val.card.json"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run = data("draw", folder, *numbers)
    assert run.returncode == 0
    assert "are there already" in run.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert data("draw", folder, *numbers, "--seed", "1").returncode == 2
    assert data("draw", folder, *numbers, "--seed", "1", "--force").returncode == 0
    recipe = json.loads((folder / "train.card.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["num_samples"], recipe["size"]) == (1, 30, 16)


def test_levels_and_markers_are_written_told_and_copied(tree: Path, out: Path) -> None:
    run = data("write", tree / "train", out, "--levels", "60,30,16", "--restart")
    assert run.returncode == 0, run.stderr
    run = data("info", out)
    for part in ("level 30 px", "level 16 px", "12 images, ", "restart markers", "one per image and level"):
        assert part in run.stdout
    copy = out.with_name("copy.beton")
    run = data("repack", out, copy, "--levels", "60,20")
    assert run.returncode == 0, run.stderr
    assert f"{copy}: 12 images of 2 classes, " in run.stdout
    card = read_card(copy)
    assert card is not None
    assert (card.num_indexed, [level.max_side for level in card.further_levels]) == (12, [20])
    run = data("verify", copy)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == f"{copy}: all 12 samples are sound and equal to their checksums"


def test_verify_lists_every_damaged_sample(tree: Path, out: Path) -> None:
    data("write", tree / "train", out)
    content = bytearray(out.read_bytes())
    with Beton(out) as beton:
        for sample in (2, 7):
            content[int(beton.images().offsets[sample]) + 300] ^= 1
    out.write_bytes(content)
    run = data("verify", out)
    assert run.returncode == 2
    *faults, summary = run.stderr.splitlines()
    assert [fault.split(",")[0] for fault in faults] == [f"{out}: sample 2", f"{out}: sample 7"]
    assert summary == f"resolute: {out}: 2 of 12 samples are damaged"
    run = data("repack", out, out.with_name("copy.beton"))
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"resolute: {out}: 2 samples are damaged;")
    assert files_in(out.parent) == ["pets.beton", "pets.card.json"]


@pytest.mark.parametrize("levels", ["256,500", "50;60", "500,0", "40,40"])
def test_levels_that_make_no_sense_are_refused(tree: Path, out: Path, levels: str) -> None:
    run = data("write", tree, out, "--levels", levels)
    assert run.returncode == 2
    assert "500,256" in run.stderr
    assert "Traceback" not in run.stderr

from __future__ import annotations

from pathlib import Path

import pytest

from ffcv_datasets.class_tree import ClassTreeError, list_class_tree, list_splits


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    return root


def test_files_are_listed_by_class_then_path(tmp_path: Path) -> None:
    tree = list_class_tree(make(tmp_path, "dog/2.jpg", "dog/10.JPEG", "cat/z.png", "cat/a/b/1.webp"))
    assert tree.classes == ("cat", "dog")
    assert tree.files == ("cat/a/b/1.webp", "cat/z.png", "dog/10.JPEG", "dog/2.jpg")
    assert tree.labels.tolist() == [0, 0, 1, 1]


def test_other_files_are_counted_and_hidden_folders_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "cat/1.jpg", "cat/notes.txt", "cat/._1.jpg", ".git/1.jpg", "cat/.thumbnails/1.jpg")
    tree = list_class_tree(tmp_path)
    assert tree.files == ("cat/1.jpg",)
    assert tree.num_ignored == 3


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1.jpg", "tree/cat/1.jpg")
    (tmp_path / "tree" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list_class_tree(tmp_path / "tree").files == ("cat/1.jpg", "dog/1.jpg")


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_a_source_with_two_splits_gives_both_with_the_labels_of_train(tmp_path: Path, name: str) -> None:
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "train/emu/1.jpg", f"{name}/emu/1.jpg", f"{name}/cat/1.jpg")
    splits = list_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    assert splits["val"].classes == splits["train"].classes == ("cat", "dog", "emu")
    assert splits["val"].labels.tolist() == [0, 2]
    assert splits["val"].root == tmp_path / name


def test_val_goes_before_test(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg", "test/cat/1.jpg")
    assert list_splits(tmp_path)["val"].root == tmp_path / "val"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, "bus/1.jpg", "train/1.jpg")
    assert list_splits(tmp_path)[""].classes == ("bus", "train")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["train/cat/1.jpg"], "none of val/, validation/, test/; give .*/train to write it alone"),
        (["train/cat/1.jpg", "val/cow/1.jpg", "val/hen/1.jpg"], "2 of its classes are not among .*: cow, hen;"),
        (["train/cat/1.jpg", "val/readme.txt"], "val: holds no class folders"),
        (["1.jpg", "cat/1.jpg"], r"1\.jpg lies outside of any class; images belong into"),
        (["cat/1.jpg", "dog/notes.txt"], "dog: holds no image to learn this class from"),
        (["notes.txt"], "holds no class folders"),
        ([], "holds no class folders"),
        (["cat/1.jpg", "d\udcffg/1.jpg"], "is not readable text"),
    ],
)
def test_a_tree_that_cannot_be_meant_is_refused(tmp_path: Path, files: list[str], sentence: str) -> None:
    with pytest.raises(ClassTreeError, match=sentence):
        list_splits(make(tmp_path, *files))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassTreeError, match="nowhere: there is no such folder"):
        list_splits(tmp_path / "nowhere")

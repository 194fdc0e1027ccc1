from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.beton_format import JPEG
from ffcv_datasets.beton_writer import PICTURE_AND_LABEL, Layout
from ffcv_datasets.card import Card, card_path, read_card, verify
from ffcv_datasets.class_tree import list_class_tree
from ffcv_datasets.picture import Encoding, PictureError, store_rgb
from ffcv_datasets.samples import BadImage, Samples, StoredSample
from ffcv_datasets.staging import WriteError
from ffcv_datasets.write import BadImagesError, Progress, split_path, write_betons

NUM_SAMPLES = 100
CLASSES = ("even", "odd")
ALL = Encoding()


@dataclass(frozen=True)
class Square:
    index: int
    side: int
    is_bad: bool

    @property
    def name(self) -> str:
        return f"square {self.index}"

    def identity(self) -> str:
        return str(self)

    def store(self, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        if self.is_bad:
            raise PictureError("not square")
        picture = Image.new("RGB", (self.side, self.side), (self.index % 256, 0, 255))
        return StoredSample(
            values={"image": store_rgb(picture, encoding, as_jpeg=as_jpeg), "label": self.index % len(CLASSES)}
        )


@dataclass(frozen=True)
class Squares:
    """One-coloured squares of growing size; the bad ones cannot be stored."""

    bad: frozenset[int] = frozenset()
    num_samples: int = NUM_SAMPLES
    side: int = 1
    layout: Layout = PICTURE_AND_LABEL
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        return {"source": "squares", "classes": CLASSES}

    def __len__(self) -> int:
        return self.num_samples

    def item(self, index: int) -> Square:
        return Square(index, self.side + index % 300, index in self.bad)


@dataclass(frozen=True)
class Whole:
    path: Path
    card: Card
    skipped: tuple[BadImage, ...]


def write(path: Path, samples: Samples | None = None, **options: Any) -> Whole:
    chosen: dict[str, Any] = {"encoding": ALL, "num_workers": 1} | options
    (written,) = write_betons([(path, samples or Squares())], **chosen)
    assert written.card is not None
    return Whole(written.path, written.card, written.skipped)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_card_says_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    written = write(path, encoding=Encoding(share_jpeg=0.25, max_side=50, jpeg_quality=80))
    card = written.card
    assert read_card(path) == card
    verify(path, card)
    with Beton(path) as beton:
        assert card.num_samples == beton.num_samples == NUM_SAMPLES
        assert card.num_jpeg == int((beton.images().mode == JPEG).sum()) == 25
        widths = beton.widths()
        assert (card.width.min, card.width.mean, card.width.max) == (1, widths.mean(), 50)
        assert card.height == card.width
        assert np.bincount(beton.labels()).tolist() == list(card.samples_per_class or ())
    assert card.classes == ("even", "odd")
    assert (card.max_side, card.jpeg_quality, card.share_jpeg) == (50, 80, 0.25)
    assert (card.source, card.num_skipped, card.num_kept) == ("squares", 0, 0)


def test_channel_statistics_weigh_every_pixel_alike(tmp_path: Path) -> None:
    card = write(tmp_path / "x.beton").card
    areas = np.arange(1, NUM_SAMPLES + 1) ** 2
    red = np.arange(NUM_SAMPLES)
    mean = np.average(red, weights=areas)
    std = np.sqrt(np.average((red - mean) ** 2, weights=areas))
    assert card.channel_mean == pytest.approx((mean, 0, 255))
    assert card.channel_std == pytest.approx((std, 0, 0))


def test_all_bad_images_of_all_parts_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    parts = [(tmp_path / "a.beton", Squares(frozenset({3, 70}))), (tmp_path / "b.beton", Squares(frozenset({5})))]
    with pytest.raises(
        BadImagesError, match=r"3 images cannot be stored; repair or remove them, or .*--skip-bad"
    ) as caught:
        write_betons(parts, ALL, num_workers=1)
    assert [str(image) for image in caught.value.images] == [
        "square 3: not square",
        "square 70: not square",
        "square 5: not square",
    ]
    assert files_in(tmp_path) == []


def test_skipped_images_leave_the_labels_of_the_others_alone(tmp_path: Path) -> None:
    bad = frozenset(range(1, NUM_SAMPLES, 2))
    written = write(tmp_path / "x.beton", Squares(bad), skip_bad=True)
    assert [image.name for image in written.skipped] == [f"square {index}" for index in sorted(bad)]
    assert written.card.num_skipped == len(bad)
    assert written.card.classes == ("even", "odd")
    assert written.card.samples_per_class == (50, 0)
    with Beton(written.path) as beton:
        assert set(beton.labels().tolist()) == {0}
        assert beton.widths().tolist() == list(range(1, NUM_SAMPLES, 2))


def test_a_file_without_one_good_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="not one image of squares could be stored"):
        write(tmp_path / "x.beton", Squares(frozenset(range(NUM_SAMPLES))), skip_bad=True)
    assert files_in(tmp_path) == []


def test_an_image_larger_than_a_page_is_a_bad_one(tmp_path: Path) -> None:
    samples = Squares(num_samples=2, side=1672)
    with pytest.raises(BadImagesError) as caught:
        write(tmp_path / "x.beton", samples, encoding=Encoding(share_jpeg=0))
    (image,) = caught.value.images
    assert image.reason.startswith(
        "1673 x 1673 px take 8,396,787 bytes, a page holds 8,388,608; give a smaller --max-side"
    )


def test_progress_counts_every_sample_of_every_part(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    parts = [(tmp_path / "a.beton", Squares()), (tmp_path / "b.beton", Squares(frozenset({1})))]
    write_betons(parts, ALL, num_workers=1, skip_bad=True, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 200) for done in range(1, 201)]


def stop_at(number: int) -> Progress:
    def on_progress(done: int, total: int) -> None:
        if done == number:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize("number", [1, 99, 100, 101, 200])
def test_an_interrupted_write_leaves_what_was_there_and_whole_drafts(tmp_path: Path, number: int) -> None:
    old = write(tmp_path / "a.beton", Squares(num_samples=1))
    before = old.path.read_bytes()
    parts = [(tmp_path / "a.beton", Squares()), (tmp_path / "b.beton", Squares())]
    with pytest.raises(KeyboardInterrupt):
        write_betons(parts, ALL, num_workers=1, force=True, on_progress=stop_at(number))
    drafts = ["a.beton.journal", "a.beton.partial"] if number > 100 else []
    assert files_in(tmp_path) == sorted(["a.beton", "a.card.json", *drafts])
    assert old.path.read_bytes() == before
    assert read_card(old.path) == old.card


def test_an_unforeseen_error_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Squares):
        def item(self, index: int) -> Square:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        write(tmp_path / "x.beton", Broken())
    assert files_in(tmp_path) == []


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    path.write_bytes(b"precious")
    with pytest.raises(WriteError, match=r"x\.beton: exists already; choose another name, or replace it with --force"):
        write(path)
    assert path.read_bytes() == b"precious"
    verify(path, write(path, force=True).card)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere/x.beton", "there is no folder .*nowhere; create it"),
        ("d.beton", "is a folder"),
    ],
)
def test_an_impossible_target_is_refused_before_any_work(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "d.beton").mkdir()
    with pytest.raises(WriteError, match=sentence):
        write(tmp_path / name, force=True, on_progress=stop_at(1))


def test_errors_survive_pickling() -> None:
    error = BadImagesError([BadImage("a.jpg", "empty")])
    assert pickle.loads(pickle.dumps(error)).images == error.images


def test_splits_are_told_apart_by_their_ending() -> None:
    assert split_path(Path("a/x.v2.beton"), "train") == Path("a/x.v2.train.beton")
    assert split_path(Path("x.beton"), "") == Path("x.beton")
    with pytest.raises(WriteError, match=r"x\.bin: the name of the file to write must end in \.beton"):
        split_path(Path("x.bin"), "train")


def make_tree(root: Path) -> Path:
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (20, 10), colour).save(root / name / "1.jpg", quality=95)
        Image.new("L", (10, 30)).save(root / name / "2.png")
    return root


def test_a_class_tree_is_stored_in_sorted_order_with_its_jpeg_bytes(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "pets")
    path = tmp_path / "pets.beton"
    written = write(path, list_class_tree(root))
    with Beton(path) as beton:
        assert beton.labels().tolist() == [0, 0, 1, 1]
        assert beton.image_bytes(0) == (root / "cat" / "1.jpg").read_bytes()
        assert beton.image_bytes(2) == (root / "dog" / "1.jpg").read_bytes()
        assert beton.heights().tolist() == [10, 30, 10, 30]
    assert written.card.source == "pets"
    assert (written.card.num_jpeg, written.card.num_kept) == (4, 2)
    assert str(tmp_path) not in card_path(path).read_text()


def test_unreadable_files_are_named_by_path_and_reason(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "pets")
    (root / "cat" / "empty.jpg").touch()
    (root / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadImagesError) as caught:
        write_betons([(tmp_path / "x.beton", list_class_tree(root))], ALL, num_workers=1)
    assert list(map(str, caught.value.images)) == [
        f"{root}/cat/empty.jpg: the file is empty",
        f"{root}/dog/gone.jpg: cannot be read (No such file or directory)",
    ]

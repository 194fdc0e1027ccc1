from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import read_card
from ffcv_datasets.picture import Encoding
from ffcv_datasets.samples import SourceError
from ffcv_datasets.shards import ShardOptions, ShardSamples, expand_braces, find_shards, list_shards
from ffcv_datasets.sources import open_source
from ffcv_datasets.targets import read_mask
from ffcv_datasets.write import BadImagesError, write_betons

Members = Sequence[tuple[str, bytes]]


def picture(colour: int = 0, image_format: str = "JPEG", size: tuple[int, int] = (20, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if image_format == "PNG" else "RGB", size, colour).save(buffer, image_format)
    return buffer.getvalue()


def tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def two_shards(folder: Path) -> list[Path]:
    return [
        tar(
            folder / "a-0.tar",
            [("x/000.jpg", picture(1)), ("x/000.cls", b"1"), ("x/001.jpg", picture(2)), ("x/001.cls", b"0\n")],
        ),
        tar(
            folder / "a-1.tar",
            [("002.PNG", picture(3, "PNG")), ("002.cls", b"2"), ("._002.png", b"?"), ("notes", b"?")],
        ),
    ]


def listed(members: Members, folder: Path, **options: object) -> ShardSamples:
    return list_shards([tar(folder / "x.tar", members)], ShardOptions(**options), source="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("a-{2..0}", ["a-2", "a-1", "a-0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{}{a}", ["{}{a}"]),
    ],
)
def test_braces_are_expanded_as_a_shell_does(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_shards_are_found_by_folder_pattern_and_name(tmp_path: Path) -> None:
    shards = two_shards(tmp_path)
    for source in (tmp_path, tmp_path / "a-{0..1}.tar", tmp_path / "*.tar", tmp_path / "a-[01].tar"):
        assert find_shards(str(source)) == shards
    assert find_shards(str(shards[1])) == shards[1:]


def test_samples_are_stored_in_order_with_their_jpeg_bytes(tmp_path: Path) -> None:
    two_shards(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\ncow\n")
    splits = open_source(str(tmp_path / "a-{0..1}.tar"), {"classes": str(names)})
    out = tmp_path / "x.beton"
    write_betons([(out, splits[""])], Encoding(), num_workers=1)
    with Beton(out) as beton:
        assert beton.labels().tolist() == [1, 0, 2]
        assert [beton.image_bytes(sample) for sample in (0, 1)] == [picture(1), picture(2)]
    card = read_card(out)
    assert card is not None
    assert (card.source, card.classes, card.num_kept) == ("a-{0..1}.tar", ("cat", "dog", "cow"), 2)
    assert str(tmp_path) not in card.model_dump_json()


def test_labels_may_come_from_json_and_may_be_names(tmp_path: Path) -> None:
    members = [
        ("0.jpg", picture()),
        ("0.json", json.dumps({"id": 7, "class": "dog"}).encode()),
        ("1.jpg", picture()),
        ("1.json", json.dumps({"class": 0}).encode()),
    ]
    samples = listed(members, tmp_path, label="json:class", classes=("cat", "dog"))
    assert [samples.item(index).label for index in range(2)] == [1, 0]


def test_masks_are_a_member_too(tmp_path: Path) -> None:
    members = [("0.jpg", picture()), ("0.seg.png", picture(7, "PNG")), ("0.txt", b"a caption")]
    samples = listed(members, tmp_path, label=None, mask="seg.png")
    assert samples.notes == ("passed over in the samples: txt",)
    write_betons([(tmp_path / "x.beton", samples)], Encoding(), num_workers=1)
    with Beton(tmp_path / "x.beton") as beton:
        assert beton.fields == {"image": "image", "mask": "bytes"}
        assert read_mask(beton, 0).tolist() == [[7] * 20] * 10


@pytest.mark.parametrize(
    ("members", "options", "sentence"),
    [
        ([], {}, "holds no samples"),
        ([("readme", b"x")], {}, "holds no samples"),
        ([("0.cls", b"1")], {}, "sample '0' has no image; its members: .cls"),
        ([("0.jpg", b""), ("0.png", b""), ("0.cls", b"1")], {}, "has 2 images; choose by image=jpg"),
        ([("0.jpg", b""), ("0.txt", b"1")], {}, "sample '0' has no member .cls; its members: .jpg, .txt"),
        ([("0.jpg", b""), ("0.json", b"{}")], {}, "has no member .cls; of its .json, label=json:KEY takes a value"),
        ([("0.jpg", b""), ("0.json", b"{}")], {"label": "json:class"}, "its JSON has no 'class'"),
        ([("0.jpg", b""), ("0.json", b"{")], {"label": "json:class"}, "its JSON is damaged"),
        ([("0.jpg", b""), ("0.json", b"[1]")], {"label": "json:class"}, "it is no object"),
        ([("0.jpg", b""), ("0.cls", b"2")], {"classes": ("a", "b")}, "sample '0': the label 2 is not in 0 .. 1"),
        ([("0.jpg", b""), ("0.cls", b"1"), ("0.jpg", b"")], {}, "sample '0' has two members .jpg"),
        ([(f"{key}.{end}", b"1") for key in "010" for end in ("jpg", "cls")], {}, "sample '0' is in"),
        ([("0.jpg", b""), ("0.cls", b"1")], {"mask": "seg.png"}, "has no member .seg.png"),
    ],
)
def test_what_is_missing_twice_or_out_of_range_is_told(
    tmp_path: Path, members: Members, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SourceError) as caught:
        listed(members, tmp_path, **options)
    assert str(caught.value).startswith(f"{tmp_path}/x.tar: ")
    assert sentence in str(caught.value)


def test_a_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    one = [("0.jpg", picture()), ("0.cls", b"1")]
    shards = [tar(tmp_path / f"{name}.tar", one) for name in "ab"]
    with pytest.raises(SourceError, match=r"b\.tar: sample '0' is in .*a\.tar too"):
        list_shards(shards, ShardOptions(), source="x")


def test_files_that_are_no_shards_are_told(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut.tar", two_shards(tmp_path)[0].read_bytes()
    cut.write_bytes(whole[:700])
    compressed, empty, other = (tmp_path / f"{name}.tar" for name in ("compressed", "empty", "other"))
    with tarfile.open(compressed, "w:gz"):
        pass
    empty.touch()
    other.write_bytes(b"x" * 2000)
    for path, sentence in (
        (cut, "is no tar file, or a damaged one"),
        (compressed, "is compressed, so that no image can be read by itself; unpack it with gunzip"),
        (empty, "is empty"),
        (other, "is no tar file"),
        (tmp_path / "a-{0..3}.tar", r"a-2.tar and 1 more: there is no such file"),
    ):
        with pytest.raises(SourceError) as caught:
            open_source(str(path), {})
        assert sentence in str(caught.value)


def test_a_damaged_image_in_a_shard_is_named(tmp_path: Path) -> None:
    samples = listed([("d/0.jpg", b"no image"), ("d/0.cls", b"1")], tmp_path)
    with pytest.raises(BadImagesError) as caught:
        write_betons([(tmp_path / "x.beton", samples)], Encoding(), num_workers=1)
    assert str(caught.value.images[0]).startswith(f"{tmp_path}/x.tar: d/0: not an image of a known kind")

"""`resolute bench decode`, with the loaders that need seconds neither to import nor to compile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ffcv_datasets.synthetic import draw_image
from tests.integration.toy import resolute

FAST = ("--size", 16, "--size", 32, "--repeats", 1, "--loader", "resolute", "--loader", "entropy")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(5):
        Image.fromarray(draw_image(0, index, 90)[0]).save(folder / f"{index}.jpg")
    return folder


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: entropy decoding alone is compiled")
def test_figures_come_as_json_by_size_and_loader(photographs: Path) -> None:
    done = resolute("bench", "decode", "--images", photographs, "--json", *FAST)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [(figure["size"], figure["loader"]) for figure in figures] == [
        (16, "resolute"),
        (16, "entropy"),
        (32, "resolute"),
        (32, "entropy"),
    ]
    assert all(set(figure) == {"size", "loader", "cpu_s_per_1000", "images_per_s"} for figure in figures)
    assert all(figure["cpu_s_per_1000"] > 0 < figure["images_per_s"] for figure in figures)


def test_figures_come_as_a_table(photographs: Path) -> None:
    done = resolute("bench", "decode", "--images", photographs, *FAST)
    assert done.returncode == 0, done.stderr
    heading, *rows = [line for line in done.stdout.splitlines() if line[:2] in ("px", "16", "32")]
    assert "resolute" in heading
    assert [row.count("|") for row in rows] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--loader", "ffvc"), "--loader ffvc: there is none of this name"),
        (("--images", "nowhere"), "--images nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_measured_is_named(arguments: tuple[str, str], sentence: str) -> None:
    failed = resolute("bench", "decode", *arguments)
    assert failed.returncode == 2
    assert sentence in failed.stderr

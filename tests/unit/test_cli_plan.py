"""What a plan says of reading, reckoned from a data set's card."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ffcv_datasets.card import Card, Extent, LevelCard
from launcher.cli.plan import further_table, plan_reading, show_plan
from launcher.config import JobConfig
from launcher.plan import Plan
from launcher.planning import build_plan
from tests.unit.sample_jobs import make_plan

CARD = Card(
    source="train",
    num_samples=1000,
    classes=None,
    samples_per_class=None,
    num_bytes=70_000_000,
    sha256="0" * 64,
    width=Extent(min=500, mean=500.0, max=500),
    height=Extent(min=500, mean=500.0, max=500),
    channel_mean=(1.0, 1.0, 1.0),
    channel_std=(1.0, 1.0, 1.0),
    max_side=500,
    jpeg_quality=90,
    share_jpeg=1.0,
    num_jpeg=1000,
    num_kept=0,
    image_bytes=50_000_000,
    further_levels=(LevelCard(max_side=250, num_images=1000, num_bytes=15_000_000),),
)


def a_plan(*resolutions: int, **phase: Any) -> Plan:
    common = {"epochs": 2, "batch_per_worker": 8, "crop_scale": [1.0, 1.0]} | phase
    phases = [{**common, "resolution": r} for r in resolutions]
    fields = {"name": "a", "data": {}, "model": {"name": "m"}, "learning_rate": {"base": 0.1}, "phases": phases}
    return build_plan(JobConfig.model_validate(fields), num_samples=1000, world_size=1)


def test_each_size_reads_the_smallest_level_that_serves_it() -> None:
    small, large = plan_reading(a_plan(200, 300), CARD)
    assert (small.resolution, large.resolution) == (200, 300)
    assert small.level_shares == {500: pytest.approx(0.0), 250: pytest.approx(1.0)}
    assert large.level_shares == {500: pytest.approx(1.0), 250: pytest.approx(0.0)}
    assert (small.bytes_per_epoch, large.bytes_per_epoch) == (15_000_000, 50_000_000)
    assert str(small) == "15.0 MB an epoch at 200 px: 100% at 250 px"


def test_a_centre_crop_reads_one_level_whatever_random_crops_would() -> None:
    """0.875 of 500 px are 437 px, and 218 px in the level of 250 px."""
    levels = [epoch.level_shares for epoch in plan_reading(a_plan(218, 219, crop_scale=[0.08, 1]), CARD)]
    assert all(0 < share < 1 for shares in levels for share in shares.values())
    small, large = plan_reading(a_plan(218, 219, centre_crop=0.875), CARD)
    assert (small.level_shares, large.level_shares) == ({500: 0.0, 250: 1.0}, {500: 1.0, 250: 0.0})


def test_a_card_that_does_not_tell_the_images_bytes_gives_no_reading() -> None:
    assert plan_reading(a_plan(200), CARD.model_copy(update={"image_bytes": None})) == []


def further(*phases: dict[str, Any], **sections: Any) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of what else is done."""
    table = further_table(make_plan(*phases, **sections))
    assert table is not None
    cells = [list(column.cells) for column in table.columns]
    return [str(column.header) for column in table.columns], [
        [str(cell) for cell in row] for row in zip(*cells, strict=True)
    ]


def test_what_else_is_done_is_told_where_it_changes_and_where_anything_is() -> None:
    two: list[dict[str, Any]] = [{"epochs": 2}, {"epochs": 2, "resolution": 24}]
    assert further_table(make_plan(*two)) is None
    wanted = {"policy": {"kind": "rand_augment", "magnitude": {"start": 5, "end": 10}}, "mixup": {"start": 0, "end": 1}}
    headings, rows = further(*two, augmentation=wanted, norm={"kind": "freeze"})
    assert headings == ["from\nepoch", "norm", "augment", "mixup"]
    assert rows == [["0", "", "5", ""], ["2", "frozen", "10", "1"], ["3", "", "10", "1"]]
    _, rows = further(*two, augmentation={"policy": {"kind": "trivial_augment"}})
    assert rows == [["0", "random"]]
    _, rows = further(*two, norm={"kind": "recalibrate", "num_batches": 5})
    assert rows == [["0", ""], ["2", "5 batches"], ["3", ""]]


def test_a_fixres_stage_is_told_by_what_trains_and_what_it_crops() -> None:
    fit = {"resolution": 24, "trainable": "classifier_and_last_norm", "centre_crop": 0.875}
    headings, rows = further({"crop_scale": [0.25, 1.0]}, fit, {**fit, "trainable": 1}, {**fit, "trainable": 2})
    assert headings == ["from\nepoch", "trains", "crop"]
    assert rows == [
        ["0", "all", "0.25-1"],
        ["1", "classifier+norm", "centre 0.875"],
        ["2", "last 1 block", "centre 0.875"],
        ["3", "last 2 blocks", "centre 0.875"],
    ]


def test_crops_that_keep_the_size_of_objects_are_told_for_each_size() -> None:
    crop = {"crop_scale": {"scale": [0.35, 1.0], "at": 32}}
    assert further({"resolution": 16, **crop}, {"resolution": 32, **crop})[1] == [["0", "0.0875-0.25"], ["1", "0.35-1"]]


def test_all_of_what_else_is_done_fits_100_columns() -> None:
    plan = make_plan(
        {"crop_scale": [0.0525, 0.925]},
        {"resolution": 24, "trainable": "classifier_and_last_norm", "centre_crop": 0.875},
        {"resolution": 24, "crop_scale": [0.0525, 0.925]},
        augmentation={
            "policy": {"kind": "rand_augment", "magnitude": {"start": 5, "end": 10}},
            "mixup": {"start": 0, "end": 0.2},
            "cutmix": {"start": 0, "end": 0.2},
            "random_erasing": 0.25,
            "dropout": {"start": 0, "end": 0.2},
            "stochastic_depth": {"start": 0, "end": 0.2},
        },
        norm={"kind": "recalibrate"},
        num_samples=100_000,
    )
    console = Console(width=200, file=io.StringIO())
    show_plan(plan, title="a", console=console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert all(heading in told for heading in ("trains", "crop", "norm", "augment", "cutmix", "erase", "depth"))
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 100

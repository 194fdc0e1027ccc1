"""What a plan says of reading, reckoned from a data set's card."""

from __future__ import annotations

from typing import Any

import pytest

from ffcv_datasets.card import Card, Extent, LevelCard
from launcher.cli.plan import further_table, plan_reading
from launcher.config import JobConfig
from launcher.plan import Plan, build_plan
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


def a_plan(*resolutions: int) -> Plan:
    phases = [{"epochs": 2, "resolution": r, "batch_per_worker": 8, "crop_scale": [1.0, 1.0]} for r in resolutions]
    fields = {"name": "a", "data": {}, "model": {"name": "m"}, "learning_rate": {"base": 0.1}, "phases": phases}
    return build_plan(JobConfig.model_validate(fields), num_samples=1000, world_size=1)


def test_each_size_reads_the_smallest_level_that_serves_it() -> None:
    small, large = plan_reading(a_plan(200, 300), CARD)
    assert (small.resolution, large.resolution) == (200, 300)
    assert small.level_shares == {500: pytest.approx(0.0), 250: pytest.approx(1.0)}
    assert large.level_shares == {500: pytest.approx(1.0), 250: pytest.approx(0.0)}
    assert (small.bytes_per_epoch, large.bytes_per_epoch) == (15_000_000, 50_000_000)
    assert str(small) == "15.0 MB an epoch at 200 px: 100% at 250 px"


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
    assert headings == ["from epoch", "norm", "augment", "mixup"]
    assert rows == [["0", "", "5", ""], ["2", "frozen", "10", "1"], ["3", "", "10", "1"]]
    _, rows = further(*two, augmentation={"policy": {"kind": "trivial_augment"}})
    assert rows == [["0", "random"]]
    _, rows = further(*two, norm={"kind": "recalibrate", "num_batches": 5})
    assert rows == [["0", ""], ["2", "5 batches"], ["3", ""]]

"""What checkpoints will take."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config import AdamW, Checkpoint, Lamb, Lars, Optimizer, RmsProp, Sgd
from launcher.disk_budget import DiskBudget, disk_budget, shortage

MB = 1_000_000


def budget(optimizer: Optimizer, *, keep_last: int = 2, keep_best: bool = True, average: bool = False) -> DiskBudget:
    cadence = Checkpoint(keep_last=keep_last, keep_best=keep_best)
    return disk_budget(
        optimizer,
        cadence,
        state_bytes=102 * MB,
        parameter_bytes=100 * MB,
        num_boundaries=3,
        has_average=average,
    )


@pytest.mark.parametrize(
    ("optimizer", "average", "megabytes"),
    [
        (Sgd(momentum=0.0), False, 102),
        (Sgd(momentum=0.9), False, 202),
        (Sgd(momentum=0.9), True, 304),
        (AdamW(name="adamw"), False, 302),
        (RmsProp(name="rmsprop", momentum=0.9), False, 302),
        (Lamb(name="lamb"), False, 302),
        (Lars(name="lars"), False, 202),
    ],
)
def test_a_checkpoint_holds_weights_average_and_what_the_optimizer_keeps(
    optimizer: Optimizer, average: bool, megabytes: int
) -> None:
    assert round(budget(optimizer, average=average).checkpoint_bytes / MB) == megabytes


def test_kept_are_the_boundaries_the_best_the_last_ones_and_the_one_being_written() -> None:
    assert budget(Sgd()).num_kept == 3 + 1 + 2 + 1
    assert budget(Sgd(), keep_last=5, keep_best=False).num_kept == 3 + 0 + 5 + 1


def test_a_disk_that_holds_all_is_not_spoken_of_and_what_is_there_already_counts() -> None:
    plain = DiskBudget(checkpoint_bytes=10 * MB, model_bytes=5 * MB, num_kept=7)
    assert shortage(plain, Path("c"), free_bytes=75 * MB, num_present=0) is None
    assert shortage(plain, Path("c"), free_bytes=75 * MB - 1, num_present=0) is not None
    assert shortage(plain, Path("c"), free_bytes=45 * MB, num_present=3) is None
    assert plain.least_bytes == 15 * MB
    assert shortage(plain, Path("c"), free_bytes=15 * MB, num_present=99) is None
    assert shortage(plain, Path("c"), free_bytes=15 * MB - 1, num_present=99) is not None


def test_a_shortage_is_told_with_its_numbers_and_what_to_do() -> None:
    plain = DiskBudget(checkpoint_bytes=10 * MB, model_bytes=5 * MB, num_kept=7)
    assert shortage(plain, Path("runs/x/checkpoints"), free_bytes=20 * MB, num_present=1) == (
        "runs/x/checkpoints: the disk has 20.0 MB free, and the run will need 65.0 MB: 7 checkpoints of 10.0 MB, 1 of "
        "which are there, and the final weights. Make room, lower checkpoint.keep_last, or give another --run-dir"
    )

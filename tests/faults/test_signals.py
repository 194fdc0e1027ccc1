"""Signals at random times: the small set; `python -m tests.faults.signal_engine --signals 100` is the large one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.signal_engine import strike


@pytest.mark.parametrize("seed", range(4))
def test_a_signal_to_any_process_ends_in_the_same_saved_step_on_all_ranks(
    seed: int, nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    hit = strike(nursery, tiny_data, tmp_path / "run", random.Random(seed))
    assert not hit.wrong, hit

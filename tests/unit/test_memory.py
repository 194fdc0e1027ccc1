"""How much memory is left, where a container or a Slurm job has a limit of its own."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from launcher.memory import available_bytes


@pytest.mark.parametrize(
    "names", [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")]
)
def test_a_groups_limit_holds_less_what_it_uses(names: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / names[0]).write_text("1000000\n")
    (tmp_path / names[1]).write_text("400000\n")
    assert available_bytes(tmp_path) == 600_000


def test_a_group_above_its_limit_has_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5")
    (tmp_path / "memory.current").write_text("9")
    assert available_bytes(tmp_path) == 0


@pytest.mark.parametrize("limit", ["max", ""])
def test_without_a_limit_the_machines_memory_counts(limit: str, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("9")
    assert available_bytes(tmp_path) > 1_000_000
    assert 0 < available_bytes() <= psutil.virtual_memory().total

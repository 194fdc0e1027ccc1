"""Damage of every kind, a small number of each here and a thousand by `python -m tests.faults.damage_engine`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.damage_engine import HARMS, damage_betons, damage_checkpoints


def test_a_damaged_checkpoint_is_refused_and_the_one_before_taken(tmp_path: Path) -> None:
    report = damage_checkpoints(tmp_path, damages=240, seed=1)
    assert report.wrong == []
    assert report.counts.total() == 240
    where = {where for where, _, _ in report.counts}
    assert where >= {"manifest.json", "model.safetensors", "optimizer.safetensors", "rng.safetensors", "the directory"}


def test_a_damaged_data_file_is_refused_by_file_or_sample_or_gives_the_pixels_it_gave(tmp_path: Path) -> None:
    report = damage_betons(tmp_path / "data", damages=160, seed=1)
    assert report.wrong == []
    assert len({where for where, _, _ in report.counts}) == 8
    assert {kind for _, kind, _ in report.counts} == set(HARMS)
    changed_pixels = [count for (where, kind, outcome), count in report.counts.items() if "no pixel" in outcome]
    assert sum(changed_pixels) < 16  # Blocks of zeros zeroed, and little else.


def test_the_engine_sees_damage_that_is_taken_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.manifest._sha256", lambda _path: "0" * 64)
    report = damage_checkpoints(tmp_path, damages=60, seed=1)
    assert any("TAKEN FOR GOOD" in sentence for sentence in report.wrong)

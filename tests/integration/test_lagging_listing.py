"""A listing that does not show yet what another host has renamed into place loses no checkpoint.

No NFS runs here. The lag is put into `listing.names_in`, the one place that lists a run's checkpoints: names are left
out of what it returns, while looking them up finds them, as with NFS's cached directories.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from launcher import listing
from launcher.checkpoint import newest_valid, save
from launcher.event_log import EventLog
from launcher.listing import told_checkpoints
from launcher.paths import RunPaths
from launcher.plan import Position
from launcher.slurm.records import newest_checkpoint
from tests.faults.commands import Commands
from tests.integration.toy import final_sums, write_job

Lag = Callable[[set[str]], None]


@pytest.fixture
def lag(monkeypatch: pytest.MonkeyPatch) -> Lag:
    """Leaves names out of every listing from now on."""
    honest = listing.names_in

    def hide(names: set[str]) -> None:
        def lagging(directory: Path) -> list[str]:
            return [name for name in honest(directory) if name not in names]

        monkeypatch.setattr(listing, "names_in", lagging)

    return hide


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run with checkpoints after epochs 1 and 2, of which its events tell."""
    paths = RunPaths(tmp_path)
    log = EventLog(paths.events)
    for epoch in (1, 2):
        info = save_at(paths, epoch)
        log.append({"event": "checkpoint_saved", "path": info.name})
    log.close()
    return paths


def save_at(paths: RunPaths, epoch: int) -> Path:
    return save(paths.checkpoints, Position(epoch), {"model": {"weight": torch.full((2,), float(epoch))}}, {}).path


def newest(paths: RunPaths) -> Position | None:
    found = newest_valid(paths.checkpoints, told=told_checkpoints(paths)).newest
    return found.position if found else None


def test_a_checkpoint_that_the_events_tell_of_is_found_though_no_listing_shows_it(paths: RunPaths, lag: Lag) -> None:
    lag({"e00002-s000000000"})
    assert newest(paths) == Position(2)
    assert newest_checkpoint(paths.root) == "e00002-s000000000"


def test_a_listed_checkpoint_that_no_event_tells_of_counts_no_less(paths: RunPaths) -> None:
    save_at(paths, 3)
    assert newest(paths) == Position(3)
    assert newest_checkpoint(paths.root) == "e00003-s000000000"


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_what_events_tell_of_is_believed_only_as_far_as_it_is_there(paths: RunPaths, lag: Lag, damage: str) -> None:
    last = paths.checkpoints / "e00002-s000000000"
    if damage == "gone":
        last.rename(paths.root / "elsewhere")
    else:
        (last / "model.safetensors").write_bytes(b"damaged")
    lag({last.name})
    assert newest(paths) == Position(1)


def test_names_in_events_lead_nowhere_but_to_checkpoints(paths: RunPaths) -> None:
    with paths.events.open("a") as log:
        for name in ('"../elsewhere"', "7", "null"):
            log.write(f'{{"time": "2026-01-01T00:00:00", "event": "checkpoint_saved", "path": {name}}}\n')
    assert told_checkpoints(paths) == ("e00001-s000000000", "e00002-s000000000")


@pytest.mark.parametrize("log", [None, "torn", "{}\n"])
def test_without_a_log_that_can_be_read_the_listing_alone_counts(paths: RunPaths, log: str | None) -> None:
    paths.events.unlink()
    if log is not None:
        paths.events.write_text(log)
    assert told_checkpoints(paths) == ()
    assert newest(paths) == Position(2)


def test_a_position_saved_again_finds_a_free_name_though_no_listing_shows_the_first(paths: RunPaths, lag: Lag) -> None:
    lag({"e00002-s000000000"})
    assert save_at(paths, 2).name == "e00002-s000000000-r001"
    assert (paths.checkpoints / "e00002-s000000000" / "manifest.json").is_file()


KILLED = "from launcher import failpoints; failpoints.arm(failpoints.parse('worker.epoch_trained:4'))"
BLIND = """
from launcher import listing
honest = listing.names_in
listing.names_in = lambda folder: [name for name in honest(folder) if name[:6] not in ("e00002", "e00003")]
"""


def test_a_run_resumes_at_the_checkpoint_that_no_listing_shows(drawn: Path, tmp_path: Path) -> None:
    """Killed in its fourth epoch; the next attempt's listings show none of the second and the third one's end."""
    job = write_job(tmp_path, drawn)
    whole, lagged = RunPaths(tmp_path / "whole"), RunPaths(tmp_path / "lagged")
    with Commands() as commands:
        assert commands.resolute("run", job, "--run-dir", whole.root).code == 0
        assert commands.resolute("run", job, "--run-dir", lagged.root, before=KILLED).code == -9
        resumed = commands.resolute("resume", lagged.root, before=BLIND)
    assert "resuming at epoch 3, sample 0 (e00003-s000000000)" in resumed.out, resumed.err
    assert final_sums(lagged) == final_sums(whole)

"""Slurm's commands, played by scripts that answer as the real ones have been seen to."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.slurm import commands
from launcher.slurm.commands import queue_entries, show_job
from launcher.slurm.standing import QueueEntry
from tests.unit.slurm.stand_ins import StandIns, no_pause

__all__ = ["no_pause"]
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
RUNNING = "echo '7|RUNNING|None|n1|9:00'"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path, monkeypatch)


@pytest.mark.usefixtures("no_pause")
def test_a_controller_that_is_away_for_a_moment_is_asked_again(slurm: StandIns) -> None:
    slurm.command("squeue", f"[ $times -lt 3 ] && {{ {AWAY}; }}; {RUNNING}")
    assert queue_entries(["7"]) == ({"7": QueueEntry("7", "RUNNING", "None", "n1", "9:00")}, None)


@pytest.mark.usefixtures("no_pause")
def test_one_that_stays_away_is_trouble_in_its_words_and_not_a_job_that_is_gone(slurm: StandIns) -> None:
    slurm.command("squeue", AWAY)
    entries, trouble = queue_entries(["7"])
    assert entries == {}
    assert trouble == (
        "Slurm cannot be asked: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    )
    assert slurm.calls("squeue") == 3


def test_a_forgotten_job_is_no_trouble_and_not_asked_for_again(slurm: StandIns) -> None:
    slurm.command("squeue", FORGOTTEN)
    assert queue_entries(["7"]) == ({}, None)
    assert slurm.calls("squeue") == 1


@pytest.mark.usefixtures("no_pause")
def test_accounting_tells_of_jobs_that_the_controller_has_forgotten_or_cannot_tell_of(slurm: StandIns) -> None:
    slurm.command("sacct", "echo '7|TIMEOUT'")
    for squeue, troubled in ((FORGOTTEN, False), (AWAY, True)):
        slurm.command("squeue", squeue)
        entries, trouble = queue_entries(["7"])
        assert (entries, trouble is not None) == ({"7": QueueEntry("7", "TIMEOUT")}, troubled)


def test_where_there_is_no_slurm_nothing_is_waited_for(slurm: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_BETWEEN_TRIES_S", 3600.0)
    _, trouble = queue_entries(["7"])
    assert trouble is not None
    assert "squeue" in trouble


@pytest.mark.usefixtures("no_pause")
def test_a_job_is_shown_once_the_controller_answers(slurm: StandIns) -> None:
    slurm.command("scontrol", f"[ $times -lt 2 ] && {{ {AWAY}; }}; echo 'JobId=7 JobState=RUNNING Reason=None'")
    shown = show_job("7")
    assert shown is not None
    assert shown.state == "RUNNING"
    slurm.command("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert show_job("7") is None

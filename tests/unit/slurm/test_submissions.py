"""Submitted runs are found by directory, name or job id, wherever they lie and whatever submitted them."""

from __future__ import annotations

from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from launcher.slurm import records
from launcher.slurm.commands import SlurmError
from launcher.slurm.profile import Profile
from launcher.slurm.records import SlurmPaths
from launcher.slurm.submissions import NoSuchRunError, find_runs, is_sweep, note_submission, read_submissions
from tests.unit.slurm.stand_ins import StandIns

PROFILE = Profile.model_validate({"cpus_per_node": 1, "workers_per_node": 1, "time_limit_minutes": 10})


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """None on PATH; a home and a folder to call from of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return StandIns(tmp_path, monkeypatch)


def submitted(root: Path, job_id: str, *, name: str = "demo") -> Path:
    note_submission(root, job_id=job_id, name=name, profile=PROFILE)
    return root


def started(root: Path, *job_ids: str) -> Path:
    for job_id in job_ids:
        records.append(SlurmPaths(root).attempts, "agent_started", job_id=job_id, restarts=0)
    return root


def a_sweep(root: Path, array_id: str, *, runs: int = 2) -> list[Path]:
    roots = [submitted(root / f"{number}-seed={number}", f"{array_id}_{number}") for number in range(runs)]
    script = SlurmPaths(root).folder / f"{array_id}_submission.sh"
    script.parent.mkdir()
    script.touch()
    return roots


def roots(target: str, *, run_root: str = "runs") -> list[Path]:
    return [run.root for run in find_runs(target, run_root=Path(run_root))]


def test_a_run_is_found_by_directory_name_and_job_id(tmp_path: Path) -> None:
    root = submitted(Path("runs/first").absolute(), "7")
    for target in ("runs/first", "first", "demo", "7"):
        assert roots(target) == [root]


@pytest.mark.parametrize("target", ["demo", "first", "7", "sweep", "9", "9_1"])
def test_a_run_below_another_root_is_found_too(tmp_path: Path, target: str) -> None:
    elsewhere = tmp_path / "scratch" / "runs"
    one = submitted(elsewhere / "first", "7")
    both = a_sweep(elsewhere / "sweep", "9")
    submitted(Path("runs/unlike").absolute(), "8", name="unlike")
    expected = {"first": [one], "7": [one], "9_1": both[1:]}.get(target, both)
    assert roots(target) == expected


def test_the_last_one_of_a_name_below_the_run_root_comes_before_those_elsewhere(tmp_path: Path) -> None:
    submitted(Path("runs/older").absolute(), "7")
    here = submitted(Path("runs/newer").absolute(), "8")
    submitted(tmp_path / "scratch" / "newest", "9")
    assert roots("demo") == [here]


def test_a_run_elsewhere_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    broken = submitted(tmp_path / "scratch" / "broken", "7")
    SlurmPaths(broken).submissions.write_text("no JSON\n")
    sound = submitted(tmp_path / "scratch" / "sound", "8")
    assert roots("demo") == [sound]


def test_where_nothing_answers_the_sentence_says_where_was_looked() -> None:
    with pytest.raises(NoSuchRunError, match=r"^demo: nothing was submitted .* in runs \(--run-root\) and from this "):
        find_runs("demo", run_root=Path("runs"))


def test_the_folder_of_all_runs_is_no_name_of_one_of_them(tmp_path: Path) -> None:
    submitted(tmp_path / "all" / "first", "7")
    with pytest.raises(NoSuchRunError):
        find_runs("all", run_root=tmp_path / "all")


def test_a_run_that_another_script_submitted_is_known_by_its_agents() -> None:
    root = started(Path("runs/plain").absolute(), "7", "7", "8")
    run = read_submissions(root)
    assert run is not None
    assert (run.job_ids, run.name) == (("7", "8"), "plain")
    for target in ("runs/plain", "plain", "8"):
        assert roots(target) == [root]
    with pytest.raises(SlurmError, match=r"slurm/resolute.sbatch .*/runs/plain`, or `resolute resume .* --here`"):
        _ = run.profile


class StoppedClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> StoppedClock:
        return cls(2026, 3, 14, 9, 26, 53, tzinfo=tz)


@pytest.mark.parametrize("clock", [datetime, StoppedClock])
def test_jobs_come_in_the_order_in_which_slurm_got_them_however_they_were_submitted(
    clock: type[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.event_log.datetime", clock)
    root = started(Path("runs/mixed").absolute(), "7")
    submitted(root, "8")
    submitted(root, "9")
    started(root, "8")
    run = read_submissions(root)
    assert run is not None
    assert (run.job_ids, run.name) == (("7", "8", "9"), "demo")
    assert Profile.model_validate(run.profile) == PROFILE


@pytest.mark.parametrize("runs", [1, 2])
def test_a_sweep_is_told_from_a_folder_of_runs(runs: int) -> None:
    swept = a_sweep(Path("runs/sweep").absolute(), "9", runs=runs)
    assert is_sweep(find_runs("runs/sweep", run_root=Path("runs")))
    submitted(swept[0], "11")
    assert is_sweep(find_runs("runs/sweep", run_root=Path("runs")))
    for number in range(runs):
        submitted(Path(f"apart/{number}").absolute(), f"7_{number}")
    assert not is_sweep(find_runs("apart", run_root=Path("runs")))

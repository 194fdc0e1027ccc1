"""`resolute status`, `logs` and `cancel` beside stand-ins for Slurm's commands."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import queue
from launcher.cli.plan import Format
from launcher.slurm import records
from launcher.slurm.commands import SlurmError
from launcher.slurm.profile import Profile
from launcher.slurm.records import SlurmPaths
from launcher.slurm.submissions import note_submission
from tests.unit.slurm.stand_ins import StandIns, no_pause

__all__ = ["no_pause"]
PROFILE = Profile.model_validate({"cpus_per_node": 1, "workers_per_node": 1, "time_limit_minutes": 10})
AWAY = "echo 'slurm_load_jobs error: connect failure' >&2; exit 1"
RUNNING = "echo '7|RUNNING|None|n1|9:00'"
FAILED = "echo '7|FAILED|NonZeroExitCode||0:00'"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pause: None) -> StandIns:
    """Called from a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    return StandIns(tmp_path, monkeypatch)


def a_run(name: str, *job_ids: str) -> Path:
    root = Path(name).absolute()
    for job_id in job_ids or ("7",):
        note_submission(root, job_id=job_id, name="demo", profile=PROFILE)
    return root


def record(root: Path, event: str, *, job_id: str = "7", **facts: Any) -> None:
    records.append(SlurmPaths(root).attempts, event, job_id=job_id, restarts=0, **facts)


def say(root: Path, words: str) -> None:
    log = SlurmPaths(root).log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(words)


def test_a_run_that_slurm_cannot_be_asked_about_is_not_said_to_be_over(
    slurm: StandIns, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.command("squeue", AWAY)
    record(a_run("a", "7", "8"), "agent_started")
    queue.status("a")
    told = capsys.readouterr().out
    assert "by the run directory it began at" in told
    assert "Slurm cannot be asked: slurm_load_jobs error: connect failure\n" in told
    assert "resume" not in told
    queue.status("a", output=Format.JSON)
    (plain,) = json.loads(capsys.readouterr().out)
    assert (plain["job_id"], plain["state"], plain["resumable"], plain["is_live"]) == ("7", "UNKNOWN", False, None)
    assert plain["trouble"] == "Slurm cannot be asked: slurm_load_jobs error: connect failure"


def test_paths_are_printed_as_a_shell_takes_them(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.command("squeue", FAILED)
    a_run("a b")
    queue.status("a b")
    assert "go on with: resolute resume 'a b'\n" in capsys.readouterr().out
    with pytest.raises(SlurmError, match="see `resolute status 'a b'`"):
        queue.cancel("a b")


def test_a_run_of_the_plain_script_is_gone_on_with_by_that(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.command("squeue", FAILED)
    record(Path("a").absolute(), "agent_started")
    queue.status("a")
    assert "go on with: sbatch [OPTIONS] slurm/resolute.sbatch a\n" in capsys.readouterr().out


def test_a_followed_log_ends_with_the_agents_last_word_though_slurm_is_slow_to_see_it(
    slurm: StandIns, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.command("squeue", RUNNING)
    root = a_run("a")
    record(root, "agent_started")
    say(root, "one\n")

    def go_on() -> None:
        time.sleep(1.2)
        say(root, "two\n")
        record(root, "agent_ended", ending="done")

    agent = threading.Thread(target=go_on)
    agent.start()
    queue.logs("a", follow=True)
    agent.join()
    assert capsys.readouterr().out == "one\ntwo\n"
    assert slurm.calls("squeue") == 1


def test_slurm_is_asked_rarely_while_a_log_is_followed_through_a_requeue(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FOLLOW_POLL_S", 0.01)
    monkeypatch.setattr(queue, "_ASK_SLURM_EVERY_S", 1.0)
    slurm.command("squeue", f"[ $times -lt 3 ] && {RUNNING} || {FAILED}")
    root = a_run("a")
    say(root, "one\n")
    record(root, "agent_started")
    record(root, "agent_ended", ending="requeued")
    begun = time.monotonic()
    queue.logs("a", follow=True)
    assert time.monotonic() - begun >= 2.0
    assert slurm.calls("squeue") == 3


def test_a_log_is_followed_while_slurm_cannot_be_asked_and_that_is_said_once(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queue, "_FOLLOW_POLL_S", 0.01)
    monkeypatch.setattr(queue, "_ASK_SLURM_EVERY_S", 0.0)
    slurm.command("squeue", f"[ $times -lt 10 ] && {{ {AWAY}; }}; {FAILED}")
    root = a_run("a")
    say(root, "one\n")
    record(root, "agent_started")
    queue.logs("a", follow=True)
    assert slurm.calls("squeue") >= 10
    assert capsys.readouterr().err.count("connect failure; the log is followed all the same\n") == 1


@pytest.mark.parametrize("folder", ["sweep/0-seed=1/slurm", "sweep/slurm"])
def test_what_was_printed_before_an_agent_began_is_shown_for_a_run_that_says_nothing(
    slurm: StandIns, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    slurm.command("squeue", "echo '7_0|FAILED|NonZeroExitCode||0:00'")
    a_run("sweep/0-seed=1", "7_0")
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "7_0_0_log.out").write_text("module: command not found\n")
    Path(folder, "7_1_0_log.out").write_text("of another run\n")
    queue.logs("sweep/0-seed=1")
    said = capsys.readouterr().err
    assert said == "nothing yet: Slurm job 7_0 is FAILED, ended before its agent began\nmodule: command not found\n"


def test_how_a_job_ended_whose_agent_did_not_say_so_follows_its_log(
    slurm: StandIns, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.command("squeue", "echo '7|OUT_OF_MEMORY|OutOfMemory||0:00'")
    root = a_run("a")
    say(root, "one\n")
    record(root, "agent_started")
    (SlurmPaths(root).folder / "7_0_log.out").write_text("slurmstepd: Detected 1 oom-kill event\n")
    queue.logs("a")
    shown = capsys.readouterr()
    assert shown.out == "one\n"
    assert shown.err == (
        "resolute: Slurm job 7 is OUT_OF_MEMORY, its agent ended without a word\n"
        "slurmstepd: Detected 1 oom-kill event\n"
    )


@pytest.mark.parametrize("squeue", [RUNNING, AWAY])
def test_nothing_is_added_to_the_log_of_a_job_that_may_live(
    slurm: StandIns, capsys: pytest.CaptureFixture[str], squeue: str
) -> None:
    slurm.command("squeue", squeue)
    root = a_run("a")
    say(root, "one\n")
    record(root, "agent_started")
    queue.logs("a")
    assert tuple(capsys.readouterr()) == ("one\n", "")


def test_a_folder_of_runs_is_not_cancelled_as_a_whole(slurm: StandIns) -> None:
    slurm.command("scancel", "")
    slurm.command("squeue", RUNNING)
    a_run("runs/a", "7")
    for others in ((), ("runs/b c",)):
        for other in others:
            a_run(other, "8")
        with pytest.raises(SlurmError, match="runs is neither a run nor a sweep; name one of") as refused:
            queue.cancel("runs")
        assert str(refused.value).splitlines()[1:] == ["  runs/a", *(f"  '{other}'" for other in others)]
    assert slurm.calls("scancel") == 0


@pytest.mark.parametrize("target", ["runs/sweep", "7", "demo", "sweep"])
def test_a_sweep_is_cancelled_as_a_whole(slurm: StandIns, target: str) -> None:
    slurm.command("scancel", "")
    slurm.command("squeue", "echo '7_0|RUNNING|None|n1|9:00'; echo '7_1|PENDING|Priority||10:00'")
    for number in range(2):
        a_run(f"runs/sweep/{number}-seed={number}", f"7_{number}")
    Path("runs/sweep/slurm").mkdir()
    Path("runs/sweep/slurm/7_submission.sh").touch()
    queue.cancel(target)
    assert slurm.arguments("scancel") == ["7_1 7_0"]


def test_nothing_is_cancelled_while_slurm_cannot_be_asked(slurm: StandIns) -> None:
    slurm.command("scancel", "")
    slurm.command("squeue", AWAY)
    a_run("a")
    with pytest.raises(SlurmError, match=r"^nothing was cancelled: Slurm cannot be asked: .*; try again$"):
        queue.cancel("a")
    assert slurm.calls("scancel") == 0

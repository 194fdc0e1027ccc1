"""Who may write into a run directory."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher import heartbeat, ownership, run_directory
from launcher.event_log import read_events
from launcher.heartbeat import Claim, Heartbeat, OwnershipLostError
from launcher.ownership import RECORD_BYTES, Owner, State, parse_owner, state_of, this_process
from launcher.paths import RunPaths, temporary
from launcher.run_directory import OwnedError, RunDirectoryError, open_run_directory, read_owner

ROOT = Path(__file__).parents[2]
OWN = """
import sys
from pathlib import Path
from launcher import ownership
from launcher.heartbeat import OwnershipLostError
from launcher.paths import temporary
from launcher.run_directory import open_run_directory
if sys.argv[2]:
    ownership._kernel = lambda: sys.argv[2]
with open_run_directory(Path(sys.argv[1]), beat_s=0.01) as run:
    run.events.append({"event": "first"})
    temporary(run.paths.job, pid=1).touch()
    (run.paths.checkpoints / ".tmp-1-e00001-s000000000").mkdir(parents=True)
    print("owned", flush=True)
    sys.stdin.read()
    try:
        run.assert_owned()
    except OwnershipLostError as error:
        print(error, flush=True)
        raise SystemExit(7)
"""
SOON: dict[str, Any] = {"beat_s": 0.01, "silent_beats": 5}
"""For owners that are dead: how often these are looked at changes no verdict."""
PATIENT: dict[str, Any] = {"beat_s": 0.05, "silent_beats": 2000}
"""For owners that live: the first beat seen ends the waiting."""


@contextmanager
def another_owner(
    root: Path, *, kernel: str = "", within: Sequence[str] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns `root` until its standard input is closed; on another machine if `kernel` is given."""
    owner = subprocess.Popen(
        [*within, sys.executable, "-c", OWN, str(root), kernel],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "owned\n"
        yield owner
    finally:
        owner.kill()
        owner.communicate()


def kill(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


def owner_of(root: Path) -> Owner:
    owner = read_owner(RunPaths(root))
    assert owner is not None
    return owner


def plant(root: Path, owner: Owner, number: int = 1) -> Path:
    """A claim as `owner` would have left it."""
    path = RunPaths(root).claim(number)
    path.write_bytes(owner.to_bytes())
    return path


def test_a_new_directory_is_made_with_its_owner_and_events(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "x"
    with open_run_directory(root) as run:
        owner = owner_of(root)
        assert (owner.host, owner.pid) == (socket.gethostname(), os.getpid())
        run.assert_owned()
        run.events.append({"event": "started"})
    assert sorted(os.listdir(root)) == ["events.jsonl", "owner-00001.json"]
    assert read_owner(RunPaths(root)) is None


def test_an_existing_run_is_opened_again_and_its_events_go_on(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        with open_run_directory(tmp_path) as run:
            run.events.append({"event": attempt})
    assert [event["event"] for event in read_events(RunPaths(tmp_path).events)] == ["first", "second"]
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "owner-00002.json"]


def test_a_run_keeps_its_name_over_all_its_starts_and_no_two_runs_share_one(tmp_path: Path) -> None:
    names = []
    for root in (tmp_path / "a", tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        with open_run_directory(root) as run:
            names.append(run.claim.run)
    assert names[0] == names[1] == names[2] != names[3]


def test_a_run_keeps_its_name_though_a_start_died_before_it_had_signed_its_claim(tmp_path: Path) -> None:
    with open_run_directory(tmp_path / "run") as first:
        pass
    first.paths.claim(first.claim.number + 1).touch()
    with open_run_directory(tmp_path / "run", **SOON) as second:
        assert second.claim.run == first.claim.run


def test_files_have_the_modes_that_the_users_umask_says(tmp_path: Path) -> None:
    for umask, wanted in ((0o002, 0o664), (0o077, 0o600)):
        previous = os.umask(umask)
        try:
            with open_run_directory(tmp_path / str(umask)) as run:
                run.events.append({"event": "x"})
        finally:
            os.umask(previous)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / str(umask)).iterdir()}
        assert modes == {wanted}


def test_a_second_start_is_refused_and_names_the_owner(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with another_owner(root, SLURM_JOB_ID="77") as owner:
        with pytest.raises(OwnedError) as caught, open_run_directory(root):
            pass
        sentence = str(caught.value)
        assert f"process {owner.pid} on {socket.gethostname()}, Slurm job 77, since 20" in sentence
        assert "stop it (scancel 77)" in sentence
        assert type(pickle.loads(pickle.dumps(caught.value))) is OwnedError
        owner.communicate("")
        assert owner.returncode == 0
    with open_run_directory(root):
        pass


def test_a_second_start_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with open_run_directory(tmp_path) as run:
        with pytest.raises(OwnedError, match=rf"stop it \(kill {os.getpid()} on "), open_run_directory(tmp_path):
            pass
        run.assert_owned()
        run.events.append({"event": "still owned"})


def test_a_dead_owners_place_is_taken_at_once_and_its_temporaries_removed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with another_owner(root) as owner:
        kill(owner)
        assert owner_of(root).pid == owner.pid
        # An hour a beat: the test ends in time only if nothing is waited for.
        with open_run_directory(root, beat_s=3600) as run:
            assert owner_of(root).pid == os.getpid()
            assert os.listdir(run.paths.checkpoints) == []
            assert not temporary(run.paths.job, pid=1).exists()
            assert [event["event"] for event in read_events(run.paths.events)] == ["first"]


def test_a_stopped_owner_on_this_machine_keeps_its_place(tmp_path: Path) -> None:
    with another_owner(tmp_path / "run") as owner:
        owner.send_signal(signal.SIGSTOP)
        with pytest.raises(OwnedError, match=f"process {owner.pid}"), open_run_directory(tmp_path / "run", **SOON):
            pass


def test_a_living_owner_on_another_machine_is_seen_by_its_count_and_named(tmp_path: Path) -> None:
    told: list[str] = []
    with another_owner(tmp_path / "run", kernel="elsewhere", SLURM_JOB_ID="78") as owner:
        opening = open_run_directory(tmp_path / "run", tell=told.append, **PATIENT)
        with pytest.raises(OwnedError, match=rf"process {owner.pid} on .*, Slurm job 78, since .*scancel 78"), opening:
            pass
        owner.communicate("")
        assert owner.returncode == 0
    (line,) = told
    assert line.endswith("watching for 100 s whether it still lives")


def test_a_dead_owner_on_another_machine_is_replaced_when_its_count_stands_still(tmp_path: Path) -> None:
    told: list[str] = []
    with another_owner(tmp_path / "run", kernel="elsewhere") as owner:
        kill(owner)
        with open_run_directory(tmp_path / "run", tell=told.append, **SOON) as run:
            run.assert_owned()
            assert owner_of(tmp_path / "run").pid == os.getpid()
        assert len(told) == 2
        assert told[1].startswith(f"process {owner.pid} on ")
        assert told[1].endswith("gave no sign of life for 0 s: taken over")


def test_a_living_owner_in_another_container_is_seen_by_its_count_as_its_pid_is_nobodys_here(
    tmp_path: Path,
) -> None:
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("An owner in another container was NOT tested: a pid namespace takes root")
    with another_owner(tmp_path / "run", within=container):
        assert owner_of(tmp_path / "run").pid == 1
        with pytest.raises(OwnedError, match="process 1 on"), open_run_directory(tmp_path / "run", **PATIENT):
            pass


def test_an_owner_that_was_suspended_and_replaced_notices_before_it_writes(tmp_path: Path) -> None:
    with another_owner(tmp_path / "run", kernel="elsewhere") as owner:
        owner.send_signal(signal.SIGSTOP)
        with open_run_directory(tmp_path / "run", **SOON) as run:
            owner.send_signal(signal.SIGCONT)
            out, _ = owner.communicate("")
            assert owner.returncode == 7
            assert f"{tmp_path / 'run'} is no longer this process's" in out
            assert "another start took the run over" in out
            run.assert_owned()
            assert owner_of(tmp_path / "run").pid == os.getpid()


def test_an_owner_that_ends_while_it_is_watched_makes_room_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_owner(tmp_path / "run", kernel="elsewhere") as owner:
        owner.send_signal(signal.SIGSTOP)

        def end_the_owner(_line: str) -> None:
            owner.send_signal(signal.SIGCONT)
            owner.communicate("")
            assert owner.returncode == 0

        with open_run_directory(tmp_path / "run", tell=end_the_owner, **PATIENT):
            assert owner_of(tmp_path / "run").pid == os.getpid()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.ALIVE),
        ({"released": True}, State.GONE),
        ({"started": 1}, State.GONE),
        ({"pid": 2**22 + 1}, State.GONE),  # More than Linux gives (proc(5), pid_max).
        ({"host": "elsewhere"}, State.UNKNOWN),
        ({"kernel": "booted again"}, State.UNKNOWN),
        ({"kernel": ""}, State.UNKNOWN),
        ({"namespaces": "a container's"}, State.UNKNOWN),
        ({"pid": 1, "started": 0}, State.ALIVE if os.getpid() == 1 else State.GONE),
    ],
)
def test_a_process_is_judged_by_its_pid_and_start_and_only_where_these_mean_something(
    changes: dict[str, object], state: State
) -> None:
    assert state_of(this_process().model_copy(update=changes)) is state


def test_a_process_that_has_ended_but_was_not_waited_for_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    process = ownership._process(child.pid)
    assert process is not None
    assert state_of(this_process().model_copy(update={"pid": child.pid, "started": process[1]})) is State.GONE
    child.wait()


def test_without_a_proc_file_system_the_count_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    monkeypatch.setattr(ownership, "_process", lambda _pid: None)
    assert state_of(me) is State.UNKNOWN


def test_a_record_has_one_length_so_that_a_full_disk_cannot_stop_it() -> None:
    me = this_process()
    longest = me.model_copy(update=dict.fromkeys(("host", "slurm_job_id", "since"), '"' * 64) | {"beat": 10**12})
    assert len(me.to_bytes()) == len(longest.to_bytes()) == RECORD_BYTES
    assert parse_owner(longest.to_bytes()) == longest


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"host": "h", "surplus": 1}', "[" * 1000, "\0\xff"])
def test_a_claim_without_sense_names_nobody_and_is_taken_over_when_nothing_changes(tmp_path: Path, text: str) -> None:
    paths = RunPaths(tmp_path)
    paths.claim(4).write_text(text)
    assert read_owner(paths) is None
    told: list[str] = []
    with open_run_directory(tmp_path, tell=told.append, **SOON):
        assert owner_of(tmp_path).pid == os.getpid()
    assert told == [
        "a start that has written nothing sensible into owner-00004.json gave no sign of life for 0 s: taken over"
    ]


def test_a_claim_longer_than_any_is_refused(tmp_path: Path) -> None:
    RunPaths(tmp_path).claim(1).write_bytes(b" " * (RECORD_BYTES + 1))
    assert read_owner(RunPaths(tmp_path)) is None
    with pytest.raises(ValueError, match=r"owner-00001\.json is longer than 1,024 bytes"), open_run_directory(tmp_path):
        pass


def test_a_number_that_a_later_owner_removed_is_not_owned_by_making_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start looks, sees claim 1 of a dead owner, is held up; meanwhile others own 2 and 3; it goes on with 2."""
    gone = this_process().model_copy(update={"released": True})
    plant(tmp_path, gone, 1)
    make = run_directory._make

    def make_late(claim: Claim, me: Owner) -> bool:
        monkeypatch.setattr(run_directory, "_make", make)
        RunPaths(tmp_path).claim(1).unlink()
        plant(tmp_path, this_process(), 3)
        return make(claim, me)

    monkeypatch.setattr(run_directory, "_make", make_late)
    with pytest.raises(OwnedError), open_run_directory(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["owner-00003.json"]


def test_a_claim_is_checked_by_a_workers_process_as_well(tmp_path: Path) -> None:
    with open_run_directory(tmp_path) as run:
        claim = pickle.loads(pickle.dumps(run.claim))
        claim.assert_held()
        successor = plant(tmp_path, this_process(), run.claim.number + 1)
        with pytest.raises(OwnershipLostError, match=r"its claim owner-00001\.json"):
            claim.assert_held()
        successor.unlink()
        claim.assert_held()
        run.claim.path.write_bytes(this_process().to_bytes())
        with pytest.raises(OwnershipLostError):
            claim.assert_held()
        assert type(pickle.loads(pickle.dumps(OwnershipLostError("x")))) is OwnershipLostError


def test_a_lost_claim_ends_the_context_with_the_sentence_and_stays_the_others(tmp_path: Path) -> None:
    other = this_process()

    def be_taken_over() -> None:
        with open_run_directory(tmp_path, beat_s=0.01) as run:
            plant(tmp_path, other, 2)
            run.claim.path.unlink()
            run.heartbeat._thread.join()
            with pytest.raises(OwnershipLostError):
                run.assert_owned()

    with pytest.raises(OwnershipLostError):
        be_taken_over()
    assert owner_of(tmp_path) == other
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "owner-00002.json"]


class DeafClaim(Claim):
    """Its file system answers the first two beats with an error, and the fourth with one that nobody foresaw."""

    beats: list[str] = []  # noqa: RUF012  a frozen class cannot hold it otherwise

    def beat(self) -> None:
        self.beats.append("beat")
        if len(self.beats) <= 2:
            raise OSError(5, "Input/output error")
        if len(self.beats) == 4:
            raise ZeroDivisionError


def test_a_file_system_that_does_not_answer_is_asked_again_and_other_errors_do_not_vanish(tmp_path: Path) -> None:
    claim = DeafClaim(tmp_path, 1, "t", "r")
    with Heartbeat(claim, beat_s=0.001) as beating:
        beating._thread.join()
    assert len(claim.beats) == 4
    assert type(beating.failure) is ZeroDivisionError


class SlowClaim(Claim):
    begun = threading.Event()
    calls: list[str] = []  # noqa: RUF012

    def beat(self) -> None:
        self.begun.set()
        time.sleep(0.05)
        self.calls.append("beat")

    def release(self) -> None:
        self.calls.append("release")


def test_a_claim_is_released_after_its_last_beat_which_would_undo_it(tmp_path: Path) -> None:
    claim = SlowClaim(tmp_path, 1, "t", "r")
    with Heartbeat(claim, beat_s=0):
        claim.begun.wait()
    assert claim.calls[-1] == "release"
    assert claim.calls.count("release") == 1


def test_the_heartbeat_counts_up_and_leaves_no_thread(tmp_path: Path) -> None:
    threads = threading.active_count()
    with open_run_directory(tmp_path, beat_s=0.001):
        first = owner_of(tmp_path).beat
        while owner_of(tmp_path).beat <= first + 3:
            pass
    assert threading.active_count() == threads
    assert [thread.name for thread in threading.enumerate()].count("heartbeat") == 0
    assert heartbeat.BEAT_S * run_directory.SILENT_BEATS == 30


def test_an_error_within_gives_the_directory_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_run_directory(tmp_path):
        raise KeyError
    with open_run_directory(tmp_path):
        pass


def test_a_directory_that_holds_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunDirectoryError, match="holds files but no run"), open_run_directory(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_in_the_directorys_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunDirectoryError, match="is not a directory"), open_run_directory(tmp_path / "run"):
        pass

"""Who may write into a run directory."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.event_log import read_events
from launcher.paths import RunPaths, temporary
from launcher.run_directory import OwnedError, RunDirectoryError, open_run_directory, read_owner

ROOT = Path(__file__).parents[2]
OWN_UNTIL_KILLED = """
import sys
from pathlib import Path
from launcher.paths import temporary
from launcher.run_directory import open_run_directory
with open_run_directory(Path(sys.argv[1])) as run:
    run.events.append({"event": "first"})
    temporary(run.paths.job, pid=1).touch()
    (run.paths.checkpoints / ".tmp-1-e00001-s000000000").mkdir(parents=True)
    print("owned", flush=True)
    sys.stdin.read()
"""


def start_owner(root: Path, **environment: str) -> subprocess.Popen[str]:
    """Another process that owns `root` until its standard input is closed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWN_UNTIL_KILLED, str(root)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "owned\n"
    return owner


def test_a_new_directory_is_made_with_its_owner_and_events(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "x"
    with open_run_directory(root) as run:
        owner = read_owner(run.paths)
        assert owner is not None
        assert (owner.host, owner.pid) == (socket.gethostname(), os.getpid())
        run.events.append({"event": "started"})
    assert sorted(os.listdir(root)) == ["events.jsonl", "owner.lock"]
    assert read_owner(RunPaths(root)) is None


def test_an_existing_run_is_opened_again_and_its_events_go_on(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        with open_run_directory(tmp_path) as run:
            run.events.append({"event": attempt})
    assert [event["event"] for event in read_events(RunPaths(tmp_path).events)] == ["first", "second"]


def test_a_second_start_is_refused_and_names_the_owner(tmp_path: Path) -> None:
    owner = start_owner(tmp_path / "run", SLURM_JOB_ID="77")
    try:
        with pytest.raises(OwnedError) as caught, open_run_directory(tmp_path / "run"):
            pass
        sentence = str(caught.value)
        assert f"process {owner.pid} on {socket.gethostname()}, Slurm job 77, since 20" in sentence
        assert "stop it (scancel 77)" in sentence
        assert type(pickle.loads(pickle.dumps(caught.value))) is OwnedError
    finally:
        owner.communicate("")
    with open_run_directory(tmp_path / "run"):
        pass


def test_a_second_start_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with open_run_directory(tmp_path) as run:
        with pytest.raises(OwnedError, match=rf"stop it \(kill {os.getpid()} on "), open_run_directory(tmp_path):
            pass
        run.events.append({"event": "still owned"})


def test_a_dead_owners_place_is_taken_over_and_its_temporaries_removed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    owner = start_owner(root)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    left = read_owner(RunPaths(root))
    assert left is not None
    assert left.pid == owner.pid
    with open_run_directory(root) as run:
        taken = read_owner(run.paths)
        assert taken is not None
        assert taken.pid == os.getpid()
        assert os.listdir(run.paths.checkpoints) == []
        assert not temporary(run.paths.job, pid=1).exists()
        assert [event["event"] for event in read_events(run.paths.events)] == ["first"]


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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', json.dumps({"host": "h", "surplus": 1})])
def test_an_owner_file_without_sense_names_nobody(tmp_path: Path, text: str) -> None:
    paths = RunPaths(tmp_path)
    paths.owner.write_text(text)
    assert read_owner(paths) is None

"""A data file's copy on a node's disk: once per node, checked, used again, and never in the way of a run."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ffcv_datasets.card import card_path
from launcher import node_copy
from launcher.events import DataNotStaged, DataStaged, Event
from launcher.staging import staged

_NUM_BYTES = 100_000


@dataclass
class Staging:
    """One worker's: what it told, and its copies, held until `end`."""

    events: list[Event] = field(default_factory=list)
    copies: dict[str, Path] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def made(self) -> list[bool]:
        """For each copy that it made or checked, whether it was an earlier one."""
        return [event.reused for event in self.events if isinstance(event, DataStaged)]

    @property
    def reason(self) -> str:
        (event,) = self.events
        assert isinstance(event, DataNotStaged)
        return event.reason

    def end(self) -> None:
        self.held.close()


def stage(
    source: Path, directory: Path, *, moved: Callable[[], None] = lambda: None, timeout_s: float = 60.0
) -> Staging:
    worker = Staging()
    copies = staged([str(source)], str(directory), timeout_s=timeout_s, emit=worker.events.append, moved=moved)
    worker.copies = worker.held.enter_context(copies)
    return worker


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_copy, "CHUNK_BYTES", 16 << 10)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "shared" / "train.beton"
    path.parent.mkdir()
    path.write_bytes(os.urandom(_NUM_BYTES))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"A full stage was NOT tested: mounting a small one takes root ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def copy_of(worker: Staging, source: Path) -> Path:
    return worker.copies[str(source)]


def left_on(disk: Path) -> list[str]:
    """What lies on a stage besides whole copies, records and locks."""
    return [path.name for path in disk.rglob("*.partial")]


def test_a_file_is_copied_whole_and_its_pace_told(source: Path, disk: Path) -> None:
    worker = stage(source, disk)
    assert copy_of(worker, source).read_bytes() == source.read_bytes()
    (event,) = worker.events
    assert isinstance(event, DataStaged)
    assert (event.source, event.num_bytes, event.reused) == (str(source), _NUM_BYTES, False)
    assert event.seconds > 0
    assert left_on(disk) == []
    worker.end()


def test_a_later_attempt_uses_the_same_copy(source: Path, disk: Path) -> None:
    first = stage(source, disk)
    first.end()
    inode = copy_of(first, source).stat().st_ino
    later = stage(source, disk)
    assert later.made == [True]
    assert copy_of(later, source).stat().st_ino == inode
    later.end()


def damage(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[777] ^= 1
    copy.write_bytes(content)


def cut(copy: Path) -> None:
    os.truncate(copy, _NUM_BYTES // 2)


def forget(copy: Path) -> None:
    copy.with_name(f"{copy.name}.json").unlink()


def muddle(copy: Path) -> None:
    copy.with_name(f"{copy.name}.json").write_text('{"source": 1}')


@pytest.mark.parametrize("harm", [damage, cut, Path.unlink, forget, muddle])
def test_a_copy_that_is_not_as_it_was_made_is_replaced(source: Path, disk: Path, harm: Callable[[Path], None]) -> None:
    first = stage(source, disk)
    first.end()
    harm(copy_of(first, source))
    later = stage(source, disk)
    assert later.made == [False]
    assert copy_of(later, source).read_bytes() == source.read_bytes()
    later.end()


@pytest.mark.parametrize("what", ["content", "time alone"])
def test_a_copy_of_an_earlier_state_is_replaced(source: Path, disk: Path, what: str) -> None:
    stage(source, disk).end()
    if what == "content":
        source.write_bytes(os.urandom(_NUM_BYTES))
    os.utime(source, ns=(1, 1))
    later = stage(source, disk)
    assert later.made == [False]
    assert copy_of(later, source).read_bytes() == source.read_bytes()
    later.end()


def test_two_files_of_one_name_have_a_copy_each(source: Path, disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / source.name
    other.parent.mkdir()
    other.write_bytes(b"other")
    workers = [stage(path, disk) for path in (source, other)]
    assert [copy_of(*pair).read_bytes() for pair in zip(workers, (source, other), strict=True)] == [
        source.read_bytes(),
        b"other",
    ]
    for worker in workers:
        worker.end()


def test_nothing_is_replaced_that_another_run_reads(source: Path, disk: Path) -> None:
    reader = stage(source, disk)
    before = copy_of(reader, source).read_bytes()
    source.write_bytes(b"changed")
    second = stage(source, disk)
    assert "another run reads" in second.reason
    assert second.copies == {}
    assert copy_of(reader, source).read_bytes() == before
    reader.end()
    third = stage(source, disk)
    assert third.made == [False]
    third.end()


_WORKER = """
import json, os, sys
from launcher import node_copy
from launcher.staging import staged

source, disk, chunks, sent = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
node_copy.CHUNK_BYTES = 16 << 10
events = []

def moved():
    global chunks
    chunks -= 1
    if chunks == 0:
        os.kill(os.getpid(), sent)

print("up", flush=True)
sys.stdin.readline()
with staged([source], disk, timeout_s=60, emit=events.append, moved=moved) as copies:
    whole = source in copies and copies[source].read_bytes() == open(source, "rb").read()
    print(json.dumps({"events": [event.to_json() for event in events], "whole": whole}), flush=True)
    sys.stdin.readline()
"""


def start_worker(
    source: Path,
    disk: Path,
    *,
    after_chunks: int = 0,
    sent: signal.Signals = signal.SIGKILL,
    limits: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """A process that is up, and stages when it is told to go on; then it holds its copy until it is told again.

    With `after_chunks` given it sends itself a signal as it comes to that chunk.
    """
    command = [sys.executable, "-c", _WORKER, str(source), str(disk), str(after_chunks), str(int(sent))]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, preexec_fn=limits)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_many_workers_that_start_at_once_one_copies(source: Path, disk: Path) -> None:
    workers = [start_worker(source, disk) for _ in range(5)]
    for worker in workers:
        go_on(worker)
    told = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout]
    for worker in workers:
        worker.communicate("\n")
    assert all(each["whole"] for each in told)
    events = [event for each in told for event in each["events"]]
    assert [(event["event"], event["reused"]) for event in events] == [("data_staged", False)]


def test_one_that_is_killed_while_it_copies_leaves_nothing_in_the_way(source: Path, disk: Path) -> None:
    victim = start_worker(source, disk, after_chunks=3)
    go_on(victim)
    assert victim.communicate()[0] == ""
    assert victim.returncode == -9
    assert len(left_on(disk)) == 1
    later = stage(source, disk)
    assert later.made == [False]
    assert left_on(disk) == []
    assert copy_of(later, source).read_bytes() == source.read_bytes()
    later.end()


def test_who_waits_goes_on_at_once_when_the_copying_process_dies(source: Path, disk: Path) -> None:
    victim = start_worker(source, disk, after_chunks=3, sent=signal.SIGSTOP)
    go_on(victim)
    assert os.WIFSTOPPED(os.waitpid(victim.pid, os.WUNTRACED)[1])
    polls = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(stage, source, disk, moved=polls.set)
        assert polls.wait(60)
        assert not waiting.done()
        victim.kill()
        victim.communicate()
        heir = waiting.result(60)
    assert heir.made == [False]
    assert copy_of(heir, source).read_bytes() == source.read_bytes()
    heir.end()


def disk_lock(source: Path, disk: Path) -> Path:
    """The lock file of a source's copy."""
    stage(source, disk).end()
    (lock,) = disk.rglob("*.lock")
    for path in (lock.with_suffix(""), lock.with_suffix(".json")):
        path.unlink()
    return lock


def test_waiting_has_an_end(source: Path, disk: Path) -> None:
    with disk_lock(source, disk).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        late = stage(source, disk, timeout_s=0.2)
    assert late.reason == "no copy was ready within 0.2 s (data.stage_timeout_s)"
    assert late.copies == {}


def test_copying_has_an_end_too(source: Path, disk: Path) -> None:
    late = stage(source, disk, timeout_s=0.0)
    assert "no copy was ready within 0 s" in late.reason
    assert left_on(disk) == []


def test_a_failure_is_told_once_by_the_worker_that_met_it(source: Path, disk: Path) -> None:
    polls = threading.Event()
    with ThreadPoolExecutor(1) as beside, disk_lock(source, disk).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = beside.submit(stage, source, disk, moved=polls.set)
        assert polls.wait(60)
        lock.write(b"another failure")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_UN)
        worker = waiting.result(60)
    assert (worker.events, worker.copies) == ([], {})


def test_too_little_room_is_told_with_both_sizes(source: Path, small_disk: Path) -> None:
    worker = stage(source, small_disk)
    folder = small_disk / f"resolute-{os.geteuid()}"
    assert worker.reason == f"there is too little room: 0.1 MB are needed, and {folder} has 0.1 MB free"
    assert worker.copies == {}


def test_room_that_ends_while_copying_is_told_with_both_sizes(
    source: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system says nothing of a user's quota: as if it had room for all.
    monkeypatch.setattr(node_copy, "free_bytes", lambda _path: 1 << 30)
    worker = stage(source, small_disk)
    assert worker.reason.startswith("No space left on device (0.1 MB are needed, and ")
    assert left_on(small_disk) == []


def test_a_limit_on_the_length_of_files_is_told_at_once(source: Path, disk: Path) -> None:
    limits = (_NUM_BYTES // 2, _NUM_BYTES // 2)
    worker = start_worker(source, disk, limits=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    out, _ = worker.communicate("\n\n")
    (event,) = json.loads(out)["events"]
    assert event["event"] == "data_not_staged"
    assert event["reason"].startswith("File too large (0.1 MB are needed, and ")
    assert left_on(disk) == []


def test_a_stage_that_is_no_directory_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in stage(source, tmp_path / "file" / "scratch").reason


def test_a_folder_that_somebody_else_could_fill_is_not_used(source: Path, disk: Path, tmp_path: Path) -> None:
    disk.mkdir()
    (tmp_path / "theirs").mkdir()
    (disk / f"resolute-{os.geteuid()}").symlink_to(tmp_path / "theirs")
    assert stage(source, disk).reason.endswith("is not a directory of your own")


def test_a_source_that_changes_while_it_is_copied_is_told(source: Path, disk: Path) -> None:
    def write_on() -> None:
        with source.open("ab") as file:
            file.write(b"more")

    worker = stage(source, disk, moved=write_on)
    assert worker.reason.startswith("the file changed while it was copied")
    assert worker.copies == {}
    assert left_on(disk) == []


def test_each_failure_leaves_word_of_itself_for_those_who_wait(source: Path, disk: Path) -> None:
    lock, words = disk_lock(source, disk), [b""]
    for _ in range(2):
        stage(source, disk, timeout_s=0.0)
        words.append(lock.read_bytes())
    assert len(set(words)) == 3


def test_a_source_that_is_not_what_its_card_says_is_told(drawn: Path, disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "train.beton"
    content = bytearray((drawn / "train.beton").read_bytes())
    content[len(content) // 2] ^= 1
    source.write_bytes(content)
    card_path(source).write_bytes(card_path(drawn / "train.beton").read_bytes())
    assert stage(source, disk).reason.startswith("its SHA-256 is not its card's")


def test_a_source_that_is_not_there_is_told(tmp_path: Path, disk: Path) -> None:
    assert "No such file" in stage(tmp_path / "gone.beton", disk).reason

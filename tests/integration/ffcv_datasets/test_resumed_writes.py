"""Writes that were killed: the next one goes on where the last commit was, and ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from ffcv_datasets.beton import Beton
from ffcv_datasets.card import Card, read_card, verify
from ffcv_datasets.class_tree import list_class_tree
from ffcv_datasets.items import PictureItem
from ffcv_datasets.picture import Encoding
from ffcv_datasets.repack import repack
from ffcv_datasets.samples import StoredSample
from ffcv_datasets.staging import Draft, WriteError
from ffcv_datasets.verify import find_faults
from ffcv_datasets.write import BadImagesError, write_betons
from tests.integration.ffcv_datasets.pictures import draw, jpeg

NUM_IMAGES = 24
COMMIT_BYTES = 30_000  # some eight images
ENCODING = Encoding(further_sides=(40, 20), restart=True, share_jpeg=0.8)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for index in range(NUM_IMAGES):
        path = root / "ab"[index * 2 // NUM_IMAGES] / f"{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(draw(60 + index, 80, index)))
    return root


def write(
    tree: Path, out: Path, *, names: Sequence[str] = ("x.beton",), encoding: Encoding = ENCODING, **options: Any
) -> list[str]:
    """Write the tree to each of `names` in the folder `out`; returns what was said."""
    said: list[str] = []
    out.mkdir(exist_ok=True)
    parts = [(out / name, list_class_tree(tree)) for name in names]
    given: dict[str, Any] = {"num_workers": 1, "commit_bytes": COMMIT_BYTES, "on_note": said.append} | options
    write_betons(parts, encoding, **given)
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(work: Callable[[], object]) -> bool:
    """Do the work in a process of its own; returns whether it was killed."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def kill_self(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_sample(number: int) -> Callable[[int, int], None]:
    return lambda done, total: kill_self() if done == number else None


@pytest.mark.parametrize("number", [1, 8, 15, NUM_IMAGES])
def test_a_killed_write_goes_on_and_ends_with_the_same_bytes(tree: Path, tmp_path: Path, number: int) -> None:
    write(tree, tmp_path / "whole")
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(number)))
    said = write(tree, out)
    assert contents(out) == contents(tmp_path / "whole")
    if number == 1:
        assert said == []
    else:
        (sentence,) = said
        assert sentence.startswith("x.beton.partial: going on after ")
        assert 0 < int(sentence.split()[4]) <= number


def test_what_was_committed_is_not_made_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed(lambda: write(tree, tmp_path / "out", on_progress=kill_at_sample(20)))
    made: list[str] = []
    store = PictureItem.store

    def note_and_store(item: PictureItem, encoding: Encoding, *, as_jpeg: bool) -> StoredSample:
        made.append(item.name)
        return store(item, encoding, as_jpeg=as_jpeg)

    monkeypatch.setattr(PictureItem, "store", note_and_store)
    (sentence,) = write(tree, tmp_path / "out")
    assert len(made) == NUM_IMAGES - int(sentence.split()[4])


def kill_at_event(number: int, folder: Path) -> None:
    """Kill this process before the `number`th time that it flushes, opens, renames, cuts or removes a file there."""
    events = count(1)
    flush = os.fsync

    def step() -> None:
        if next(events) == number:
            kill_self()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_there = str(arguments[0]).startswith(str(folder)) if arguments else False
        if event == "os.truncate" or (event in ("open", "os.rename", "os.remove") and is_there):
            step()

    def fsync(descriptor: int) -> None:
        step()
        flush(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]


def test_a_write_killed_at_any_step_is_made_whole_by_the_next(tree: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": ["train.beton", "val.beton"], "encoding": Encoding(max_side=50)}
    write(tree, tmp_path / "whole", **options)
    whole = contents(tmp_path / "whole")

    def write_and_die(number: int, out: Path) -> None:
        kill_at_event(number, out)
        write(tree, out, **options)

    for number in count(1):
        out = tmp_path / str(number)
        out.mkdir()
        if not killed(lambda number=number, out=out: write_and_die(number, out)):  # type: ignore[misc]
            break
        with suppress(WriteError):  # all was published, and is not written again
            write(tree, out, **options)
        found = contents(out)
        found.pop("val.beton.journal", None)
        assert found == whole, f"killed before step {number}"
    assert number > 30


def test_a_write_killed_again_and_again_ends_as_well(tree: Path, tmp_path: Path) -> None:
    write(tree, tmp_path / "whole")
    out = tmp_path / "out"
    for number in (9, 15, 17, 22, NUM_IMAGES):
        assert killed(lambda number=number: write(tree, out, on_progress=kill_at_sample(number)))  # type: ignore[misc]
    write(tree, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_other_options_start_anew_and_say_so(tree: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", Encoding(share_jpeg=0.5)
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(15)))
    said = write(tree, out, encoding=other)
    assert said == ["x.beton.partial: was begun with other further_sides, restart, share_jpeg; starting anew"]
    write(tree, tmp_path / "whole", encoding=other)
    assert contents(out) == contents(tmp_path / "whole")


def rewrite(path: Path) -> None:
    path.write_bytes(jpeg(draw(33, 44, 99)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tree: rewrite(tree / "a" / "03.jpg"), "was begun before {tree}/a/03.jpg changed"),
        (lambda tree: (tree / "a" / "03.jpg").rename(tree / "a" / "03b.jpg"), "before {tree}/a/03b.jpg changed"),
        (lambda tree: (tree / "b" / "20.jpg").unlink(), "was begun with other number of samples"),
        (lambda tree: (tree / "a").rename(tree / "c"), "was begun before {tree}/b/12.jpg changed"),
    ],
)
def test_a_changed_source_starts_anew_and_says_so(
    tree: Path, tmp_path: Path, change: Callable[[Path], object], sentence: str
) -> None:
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(15)))
    change(tree)
    (said,) = write(tree, out)
    assert sentence.format(tree=tree) in said
    assert said.endswith("; starting anew")
    write(tree, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_change_in_what_was_not_yet_written_goes_on(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(15)))
    rewrite(tree / "b" / "20.jpg")
    (said,) = write(tree, out)
    assert "going on" in said
    write(tree, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_draft_that_was_cut_starts_anew(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(15)))
    with (out / "x.beton.partial").open("r+b") as file:
        file.truncate(1000)
    assert write(tree, out) == []
    write(tree, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("cut", [1, 9, 200])
def test_a_journal_whose_end_is_torn_goes_on_from_the_commit_before(tree: Path, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, on_progress=kill_at_sample(22)))
    with (out / "x.beton.journal").open("r+b") as file:
        file.truncate((out / "x.beton.journal").stat().st_size - cut)
    (said,) = write(tree, out)
    assert "going on after" in said
    write(tree, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_bad_images_are_remembered(tree: Path, tmp_path: Path) -> None:
    for name in ("a/02.jpg", "b/21.jpg"):
        (tree / name).write_bytes(b"")
    out = tmp_path / "out"
    assert killed(lambda: write(tree, out, skip_bad=True, on_progress=kill_at_sample(18)))
    write(tree, out, skip_bad=True)
    write(tree, tmp_path / "whole", skip_bad=True)
    assert contents(out) == contents(tmp_path / "whole")
    card = read_card(out / "x.beton")
    assert card is not None
    assert card.num_skipped == 2


def test_work_before_a_bad_image_is_kept_for_a_run_that_skips_it(tree: Path, tmp_path: Path) -> None:
    (tree / "b" / "21.jpg").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(BadImagesError):
        write(tree, out)
    (said,) = write(tree, out, skip_bad=True)
    assert "going on after" in said
    write(tree, tmp_path / "whole", skip_bad=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_stop_says_what_is_kept(tree: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        write(tree, tmp_path / "out", on_progress=stop, on_note=said.append)
    assert sorted(contents(tmp_path / "out")) == ["x.beton.journal", "x.beton.partial"]
    (sentence,) = said
    assert sentence.endswith(" of 24 images are kept; the same command goes on from there")


def test_two_processes_do_not_write_one_file(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    other = Draft(tmp_path / "out" / "x.beton", {})
    with pytest.raises(WriteError, match=r"x\.beton\.partial: another process is writing it"):
        write(tree, tmp_path / "out")
    other.close()
    write(tree, tmp_path / "out")


def test_a_killed_copy_goes_on_and_ends_with_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    write(tree, tmp_path / "source", encoding=Encoding(share_jpeg=0.7))
    source = tmp_path / "source" / "x.beton"
    options: dict[str, Any] = {"sides": (40, 20), "restart": True, "commit_bytes": COMMIT_BYTES}

    def copy(out: Path, **more: Any) -> Card | None:
        out.mkdir(exist_ok=True)
        return repack(source, out / "y.beton", **options, **more)

    copy(tmp_path / "whole")
    assert killed(lambda: copy(tmp_path / "out", on_progress=kill_at_sample(17)))
    said: list[str] = []
    copy(tmp_path / "out", on_note=said.append)
    assert "going on after" in said[0]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# With processes: enough images for some.
NUM_MANY = 600


@pytest.fixture
def many(tmp_path: Path) -> Path:
    root = tmp_path / "many"
    for index in range(NUM_MANY):
        path = root / "abc"[index % 3] / f"{index:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(draw(20 + index % 40, 48, index)))
    (root / "c" / "599.jpg").write_bytes(b"")
    return root


def test_the_files_do_not_depend_on_the_number_of_processes(many: Path, tmp_path: Path) -> None:
    encoding = Encoding(share_jpeg=0.4, max_side=40, further_sides=(20,))
    for workers in (1, 3):
        write(many, tmp_path / str(workers), encoding=encoding, skip_bad=True, num_workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    with Beton(tmp_path / "1" / "x.beton") as beton:
        assert beton.num_samples == NUM_MANY - 1
        assert find_faults(beton) == []
    card = read_card(tmp_path / "1" / "x.beton")
    assert card is not None
    verify(tmp_path / "1" / "x.beton", card)


_WRITE = """
import sys
from pathlib import Path
from ffcv_datasets.class_tree import list_class_tree
from ffcv_datasets.items import PictureItem
from ffcv_datasets.picture import Encoding
from ffcv_datasets.write import write_betons

def report(done, total):
    if done == 200:
        print("working", flush=True)
        sys.stdin.read()

if __name__ == "__main__":
    tree = list_class_tree(Path(sys.argv[1]))
    parts = [(Path(sys.argv[2]), tree)]
    write_betons(parts, Encoding(max_side=40), num_workers=2, skip_bad=True, commit_bytes=30_000, on_progress=report)
"""


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_a_killed_process_takes_the_others_along_and_the_next_write_goes_on(
    many: Path, tmp_path: Path, victim: str
) -> None:
    out, script = tmp_path / "out", tmp_path / "write.py"
    out.mkdir()
    script.write_text(_WRITE)
    command = [sys.executable, str(script), str(many), str(out / "x.beton")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        family = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        (process if victim == "parent" else workers[0]).kill()
        _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert process.returncode == (-signal.SIGKILL if victim == "parent" else 1)
    if victim == "worker":
        assert "WorkerLostError: a process that encodes images was killed" in errors
    encoding = Encoding(max_side=40)
    (said,) = write(many, out, encoding=encoding, skip_bad=True)
    assert "going on after" in said
    write(many, tmp_path / "whole", encoding=encoding, skip_bad=True)
    assert contents(out) == contents(tmp_path / "whole")

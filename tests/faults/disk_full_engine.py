"""Fills a disk so that one write of a run after the other is the one that fails, and resumes when there is room again.

    python -m tests.faults.disk_full_engine --every 1        (root: it mounts a small tmpfs)

Three walks, each from nothing free upwards until the run ends well: pages, with a file system that tells how many are
left; pages beyond a quota, of which the file system says nothing; and files. Each time the run must end with exit code
5 and a sentence that names the path and what to do; what was saved before must load; and with room again the same
command must end with the weights of a run that never met a full disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.checkpoint import scan
from launcher.paths import RunPaths
from tests.faults.commands import Commands
from tests.faults.tiny_run import draw_data
from tests.integration.toy import final_sums, write_job

WALKS = ("pages", "pages of a quota", "files")
_PAGE_BYTES = 4096
_DISK_BYTES = 4 << 20
_FILES = 120
_SMALL = {"name": "small_resnet", "options": {"width": 2, "blocks_per_stage": 1}}
_BLIND = "from launcher import durable; durable.free_bytes = lambda path: 1 << 40"
_SENTENCE = re.compile(r"resolute: (\S+): the disk or your quota is full: [\d.,]+ MB are needed.*Make room", re.S)


@dataclass(frozen=True)
class Meeting:
    """One run that met a full disk."""

    walk: str
    free: int
    """Pages or files that were left."""
    failed_at: str
    """The path that the sentence names, within the run directory, numbers left out."""
    saved_before: str | None
    """The newest checkpoint that was there."""
    wrong: tuple[str, ...]
    """What should not have been; empty if all is well."""


def walk_disk(folder: Path, walk: str, commands: Commands, *, every: int) -> Iterator[Meeting]:
    """Let 0, `every`, 2 x `every`, ... be free, until a run comes to its end."""
    job = write_job(folder, draw_data(folder / "data"), model=_SMALL)
    reference = RunPaths(folder / "reference")
    whole = commands.resolute("run", job, "--run-dir", reference.root)
    assert whole.code == 0, whole
    expected = final_sums(reference)
    for free in range(0, 10_000, every):
        with _small_disk(folder / "disk") as disk:
            meeting = _meet(commands, job, RunPaths(disk / "run"), walk, free, expected)
        if meeting is None:
            return
        yield meeting


def _meet(
    commands: Commands, job: Path, paths: RunPaths, walk: str, free: int, expected: dict[str, str]
) -> Meeting | None:
    """None if the run did not meet a full disk."""
    fillers = _fill(paths.root.parent, walk, free)
    arguments = ("run", job, "--run-dir", paths.root)
    failed = commands.resolute(*arguments, before=_BLIND if walk == "pages of a quota" else "")
    if failed.code == 0:
        return None
    wrong = [] if failed.code == 5 else [f"exit code {failed.code}"]
    sentence = _SENTENCE.search(failed.err)
    if sentence is None or not sentence[1].startswith(str(paths.root)) or "Traceback" in failed.err:
        wrong.append(f"said {failed.err[-300:]!r}")
    saved = scan(paths.checkpoints)
    wrong += [f"left a damaged checkpoint: {rejected.reason}" for rejected in saved.rejected]
    for filler in fillers:
        filler.unlink()
    resumed = commands.resolute(*arguments)
    if resumed.code != 0:
        wrong.append(f"the resume ended with exit code {resumed.code}: {resumed.err[-300:]!r}")
    elif final_sums(paths) != expected:
        wrong.append("ended with other weights")
    place = Path(sentence[1]).relative_to(paths.root).as_posix() if sentence else "?"
    name = re.sub(r"[0-9]{5,}", "N", place)
    return Meeting(walk, free, name, saved.newest.path.name if saved.newest else None, tuple(wrong))


def _fill(disk: Path, walk: str, free: int) -> list[Path]:
    """Take all of the disk but so many pages or files."""
    if walk == "files":
        fillers = [disk / f"filler{n}" for n in range(os.statvfs(disk).f_ffree - free)]
        for filler in fillers:
            filler.touch()
        return fillers
    filler = disk / "filler"
    filler.touch()
    with filler.open("wb") as file:
        file.write(bytes(os.statvfs(disk).f_bavail * _PAGE_BYTES - free * _PAGE_BYTES))
    assert os.statvfs(disk).f_bavail == free
    return [filler]


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    options = f"size={_DISK_BYTES},nr_inodes={_FILES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def table(meetings: list[Meeting]) -> str:
    """Markdown: what failed, at how many amounts of free space, and whether all went well."""
    counts: Counter[tuple[str, str]] = Counter((meeting.walk, meeting.failed_at) for meeting in meetings)
    bad = Counter((meeting.walk, meeting.failed_at) for meeting in meetings if meeting.wrong)
    lines = [
        "| walk | the write that failed | times | exit 5, sentence, earlier state loads, same weights |",
        "|---|---|---|---|",
    ]
    lines += [f"| {walk} | {place} | {n} | {n - bad[walk, place]} |" for (walk, place), n in sorted(counts.items())]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--every", type=int, default=1, help="Pages or files from one amount of free space to the next."
    )
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    meetings: list[Meeting] = []
    for walk in WALKS:
        with tempfile.TemporaryDirectory() as folder, Commands() as commands:
            meetings += walk_disk(Path(folder), walk, commands, every=wanted.every)
    if wanted.json:
        print(json.dumps([asdict(meeting) for meeting in meetings]))
    else:
        print(table(meetings))
        for meeting in meetings:
            for sentence in meeting.wrong:
                print(f"{meeting.walk}, {meeting.free} free: {sentence}")
    return 1 if any(meeting.wrong for meeting in meetings) else 0


if __name__ == "__main__":
    raise SystemExit(main())

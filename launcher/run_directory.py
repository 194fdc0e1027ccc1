"""A run's directory, and who may write there: one process at a time, on whatever file system."""

from __future__ import annotations

import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from launcher import failpoints
from launcher.durable import StrangeFileError, make_directory, naming_full_disk, remove_temporaries, sync
from launcher.event_log import EventLog
from launcher.file_system import trouble_in
from launcher.heartbeat import BEAT_S, Claim, Heartbeat, read_claim
from launcher.ownership import RECORD_BYTES, Owner, State, state_of, this_process
from launcher.paths import RunPaths, claim_number

SILENT_BEATS = 15
"""So many beats without a sign of life and an owner whose process cannot be looked at counts as dead."""
_SETTLE_S = 0.05


class RunDirectoryError(ValueError):
    """A directory cannot take this run."""


class OwnedError(RunDirectoryError):
    """Another process runs in this directory."""


@dataclass(frozen=True)
class RunDirectory:
    """An owned run directory."""

    paths: RunPaths
    events: EventLog
    claim: Claim
    """For the workers, who check it before they commit a checkpoint."""
    heartbeat: Heartbeat

    def assert_owned(self) -> None:
        """Raises OwnershipLostError if another start has taken the directory over: nothing may be written then."""
        if self.heartbeat.failure is not None:
            raise self.heartbeat.failure
        self.claim.assert_held()


@contextmanager
def open_run_directory(
    root: Path,
    *,
    tell: Callable[[str], None] = lambda _line: None,
    beat_s: float = BEAT_S,
    silent_beats: int = SILENT_BEATS,
) -> Iterator[RunDirectory]:
    """Own the run directory `root`, new or an earlier run's, until the context ends or this process dies.

    A dead owner's place is taken at once if it ran here, else after `silent_beats` beats of `beat_s` seconds without a
    sign of life; `tell` gets a line about that. What an attempt that died had half prepared is removed.

    Raises OwnedError naming the owner, RunDirectoryError if `root` holds something else than a run or is on a file
    system that cannot hold one, DiskFullError.
    """
    paths = RunPaths(root)
    _refuse_strange(paths)
    make_directory(root)
    claim = _take(paths, tell, beat_s=beat_s, silent_beats=silent_beats)
    with Heartbeat(claim, beat_s=beat_s) as heartbeat:
        remove_temporaries(root)
        remove_temporaries(paths.checkpoints)
        _refuse_unreliable(root)
        events = EventLog(paths.events)
        directory = RunDirectory(paths, events, claim, heartbeat)
        try:
            yield directory
        finally:
            events.close()
        if heartbeat.failure is not None:
            raise heartbeat.failure


def read_owner(paths: RunPaths) -> Owner | None:
    """Who runs in this directory, or died there; None if nobody, or the claim says nothing sensible."""
    number = _newest_claim(paths)
    try:
        owner = read_claim(paths.claim(number)) if number else None
    except StrangeFileError:
        return None
    return None if owner is None or owner.released else owner


def _take(paths: RunPaths, tell: Callable[[str], None], *, beat_s: float, silent_beats: int) -> Claim:
    """Make the next claim, once the newest one's owner is seen to be gone. Raises OwnedError."""
    while True:
        newest = _newest_claim(paths)
        before = read_claim(paths.claim(newest)) if newest else None
        if newest and not _is_gone(paths, newest, before, tell, beat_s=beat_s, silent_beats=silent_beats):
            continue
        me = this_process(run=_run_name(paths))
        claim = Claim(paths.root, newest + 1, me.token, me.run)
        if not _make(claim, me):
            continue
        failpoints.hit("claim.made")
        # A start that had looked long ago may make a number anew that a later owner has removed.
        if _newest_claim(paths) > claim.number:
            claim.path.unlink()
            continue
        for number in _claims(paths):
            if number < claim.number:
                paths.claim(number).unlink(missing_ok=True)
        failpoints.hit("claim.taken")
        return claim


def _is_gone(
    paths: RunPaths,
    number: int,
    owner: Owner | None,
    tell: Callable[[str], None],
    *,
    beat_s: float,
    silent_beats: int,
) -> bool:
    """Whether the `owner` in that claim is gone; False if another look at the directory is needed.

    Raises OwnedError if it lives.
    """
    path = paths.claim(number)
    state = state_of(owner) if owner else State.UNKNOWN
    if owner and state is State.ALIVE:
        raise _owned(paths, owner)
    if state is State.GONE:
        return True
    if not path.exists():
        time.sleep(_SETTLE_S)  # Taken over just now, though a cached listing (NFS) may show it for a while.
        return False
    who = str(owner) if owner else f"a start that has written nothing sensible into {path.name}"
    if owner:
        tell(f"{paths.root} belongs to {who}: watching for {silent_beats * beat_s:.0f} s whether it still lives")
    for wait_s in (_SETTLE_S, *[beat_s] * silent_beats):
        time.sleep(wait_s)
        now = read_claim(path)
        if now != owner:
            if now and owner and now.token == owner.token and not now.released:
                raise _owned(paths, now)
            return False
    tell(f"{who} gave no sign of life for {silent_beats * beat_s:.0f} s: taken over")
    return True


def _make(claim: Claim, me: Owner) -> bool:
    """Make the file of a claim; False if another process was faster. Raises DiskFullError, with nothing left."""
    with naming_full_disk(claim.path, RECORD_BYTES):
        try:
            descriptor = os.open(claim.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        failpoints.hit("claim.unsigned")
        try:
            os.write(descriptor, me.to_bytes())
            os.fsync(descriptor)
        except OSError:
            claim.path.unlink()
            raise
        finally:
            os.close(descriptor)
        sync(claim.root)
    return True


def _run_name(paths: RunPaths) -> str:
    """As the newest claim tells it that a start lived to sign; empty if none does."""
    owners = (read_claim(paths.claim(number)) for number in sorted(_claims(paths), reverse=True))
    return next((owner.run for owner in owners if owner is not None), "")


def _claims(paths: RunPaths) -> list[int]:
    return [number for name in os.listdir(paths.root) if (number := claim_number(name)) is not None]


def _newest_claim(paths: RunPaths) -> int:
    """The highest number that is claimed; 0 if none is."""
    return max(_claims(paths), default=0) if paths.root.is_dir() else 0


def _refuse_strange(paths: RunPaths) -> None:
    """Raises RunDirectoryError if `root` cannot be, or should not be trusted to be, a run's directory."""
    root = paths.root
    if not root.exists():
        return
    if not root.is_dir():
        raise RunDirectoryError(f"{root} is not a directory: give the run a directory of its own")
    owner = root.stat()
    if owner.st_uid != os.geteuid() and owner.st_mode & stat.S_IWOTH:
        raise RunDirectoryError(
            f"{root} belongs to {_user(owner.st_uid)}, and everybody may write into it: anybody could change a run "
            f"there; give the run a directory of your own"
        )
    names = os.listdir(root)
    if names and not any(claim_number(name) for name in names):
        raise RunDirectoryError(
            f"{root} holds files but no run ({paths.claim(1).name} is missing): give the run a new or empty directory"
        )
    for path in (paths.job, paths.plan, paths.events, paths.summary, paths.model):
        _refuse_unless(path, stat.S_ISREG, "file")
    for path in (paths.checkpoints, paths.logs):
        _refuse_unless(path, stat.S_ISDIR, "directory")


def _refuse_unreliable(root: Path) -> None:
    """Raises RunDirectoryError if the file system does not do what checkpoints and claims rest on."""
    if trouble := trouble_in(root):
        raise RunDirectoryError(
            f"{root} is on a file system that cannot hold a run: {trouble}. Take another --run-dir, on a local disk, "
            "NFS (v3 or later), Lustre, GPFS or BeeGFS; `resolute doctor DIRECTORY` tells more"
        )


def _refuse_unless(path: Path, is_kind: Callable[[int], bool], kind: str) -> None:
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not is_kind(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else f"no {kind}"
            raise RunDirectoryError(
                f"{path} is {what}: a run reads and writes in its own directory alone; put the {kind} itself there"
            )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _owned(paths: RunPaths, owner: Owner) -> OwnedError:
    return OwnedError(
        f"{paths.root} belongs to {owner}: wait for it to end, stop it ({owner.how_to_stop}), or use another directory"
    )

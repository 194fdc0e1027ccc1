"""One file's copy on a node's own disk: made by the first process that wants it, checked, and shared by the others.

A copy of a source file is kept in a folder `resolute-UID/`, with a record of what it is a copy of, and a lock file.
Whoever makes, checks or replaces it holds that lock alone, whoever reads it shares it: these are the kernel's locks, on
the node's own disk, and go with their process. So nothing is replaced that anybody reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ffcv_datasets.card import read_card
from launcher.durable import StrangeFileError, free_bytes, read_plain, sync, write_atomically

CHUNK_BYTES = 8 << 20
_POLL_S = 0.1
_RECORD_BYTES = 16 << 10


class NotStagedError(Exception):
    """Why a file is read from where it lies."""


class ToldError(Exception):
    """Another process of the node has failed meanwhile, and says why."""


@dataclass(frozen=True)
class Made:
    """What this process did to have a copy in order."""

    num_bytes: int
    seconds: float
    reused: bool
    """An earlier attempt's copy was there, and read back as it was written."""


class _Record(BaseModel):
    """Of what a whole, checked copy was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: str
    num_bytes: int
    mtime_ns: int
    sha256: str


class NodeCopy:
    """The copy of one source on this node, and this process's share in its lock while the context lasts."""

    def __init__(self, source: Path, directory: Path):
        """Raises NotStagedError, or OSError of a directory that cannot be written."""
        folder = _own_folder(directory)
        name = f"{hashlib.sha256(os.fsencode(source)).hexdigest()[:12]}-{source.name}"
        self.source = source
        self.path = folder / name
        self._draft = folder / f"{name}.partial"
        self._record_path = folder / f"{name}.json"
        self._lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def __enter__(self) -> NodeCopy:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def make_ready(self, go_on: Callable[[], None]) -> Made | None:
        """See to it that the copy is there and as it should be; what was done, or None if another process did it.

        Holds a share in the lock from then on. Raises ToldError; or CardError, OSError and NotStagedError.
        """
        failures, made = self._failures(), None
        while True:
            if self._try_lock(fcntl.LOCK_EX):
                self._require_no_new(failures)
                made = self._check_or_copy(go_on)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            elif not self._try_lock(fcntl.LOCK_SH):
                go_on()
                time.sleep(_POLL_S)
                continue
            # Locks are not exchanged in one step: another process may have been at it in between.
            if self._is_current(self._read_record()):
                return made
            self._require_no_new(failures)
            if made is None:
                raise NotStagedError(f"another run reads {self.path}, which is of an earlier state of the file")

    def _check_or_copy(self, go_on: Callable[[], None]) -> Made:
        began = time.perf_counter()
        try:
            record, reused = self._reuse(go_on), True
            if record is None:
                record, reused = self._replace(go_on), False
            write_atomically(self._record_path, record.model_dump_json())
        except BaseException:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)
                self._note_failure()
            raise
        return Made(record.num_bytes, time.perf_counter() - began, reused)

    def _reuse(self, go_on: Callable[[], None]) -> _Record | None:
        """The record of a copy that is there, of the source as it is now, and undamaged; None if there is none."""
        record = self._read_record()
        # Nobody shall take the copy for a checked one while it is being checked, whenever this process dies.
        self._record_path.unlink(missing_ok=True)
        return record if record and self._is_current(record) and _sum(self.path, go_on) == record.sha256 else None

    def _replace(self, go_on: Callable[[], None]) -> _Record:
        self.path.unlink(missing_ok=True)
        self._draft.unlink(missing_ok=True)
        before = self.source.stat()
        try:
            sum_read = self._copy(before.st_size, go_on)
        except OSError as error:
            raise NotStagedError(f"{reason(error)} ({_room(self.path.parent, before.st_size)})") from error
        after = self.source.stat()
        if (after.st_size, after.st_mtime_ns, after.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise NotStagedError("the file changed while it was copied: something writes it, so look at what that is")
        card = read_card(self.source)
        if card is not None and card.sha256 != sum_read:
            raise NotStagedError("its SHA-256 is not its card's: see `resolute data verify`")
        if _sum(self._draft, go_on) != sum_read:
            raise NotStagedError(f"what was written to {self._draft} does not read back: its disk fails")
        os.replace(self._draft, self.path)
        sync(self.path.parent)
        return _Record(source=str(self.source), num_bytes=before.st_size, mtime_ns=before.st_mtime_ns, sha256=sum_read)

    def _copy(self, num_bytes: int, go_on: Callable[[], None]) -> str:
        """Write the draft, durably; the SHA-256 of what was read."""
        if free_bytes(self._draft) < num_bytes:
            raise NotStagedError(f"there is too little room: {_room(self._draft.parent, num_bytes)}")
        digest = hashlib.sha256()
        with (
            open(self.source, "rb", buffering=0) as reading,
            open(self._draft, "xb") as writing,
            ThreadPoolExecutor(1) as beside,
        ):
            if num_bytes:
                os.posix_fallocate(writing.fileno(), 0, num_bytes)  # A quota shows now, rather than after an hour.
            # No more than it had: a file that something writes on would have no end.
            while chunk := reading.read(min(CHUNK_BYTES, num_bytes - writing.tell())):
                go_on()
                summed = beside.submit(digest.update, chunk)
                writing.write(chunk)
                summed.result()
            writing.flush()
            os.fsync(writing.fileno())
        return digest.hexdigest()

    def _is_current(self, record: _Record | None) -> bool:
        """Whether that is the record of a copy that is there, of the source as it is now. Reads no data."""
        if record is None or not self.path.is_file():
            return False
        now, card = self.source.stat(), read_card(self.source)
        of_now = (str(self.source), now.st_size, now.st_mtime_ns)
        same_card = card is None or card.sha256 == record.sha256
        return same_card and (record.source, record.num_bytes, record.mtime_ns) == of_now

    def _read_record(self) -> _Record | None:
        try:
            return _Record.model_validate_json(read_plain(self._record_path, max_bytes=_RECORD_BYTES))
        except (FileNotFoundError, StrangeFileError, ValidationError):
            return None

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _failures(self) -> bytes:
        """Other bytes after each failure."""
        return os.pread(self._lock, 64, 0)

    def _note_failure(self) -> None:
        os.pwrite(self._lock, secrets.token_hex(16).encode(), 0)

    def _require_no_new(self, failures: bytes) -> None:
        """Raises ToldError rather than let every worker of a node fail in turn."""
        if self._failures() != failures:
            raise ToldError


def _own_folder(directory: Path) -> Path:
    """A folder in `directory` that nobody else can enter: in one of another user's anything could lie."""
    folder = directory / f"resolute-{os.geteuid()}"
    directory.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NotStagedError(f"{folder} is not a directory of your own")
    return folder


def _sum(path: Path, go_on: Callable[[], None]) -> str:
    """SHA-256 of what is on the disk, as far as the kernel can be made to forget what is in memory."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(CHUNK_BYTES):
            go_on()
            digest.update(chunk)
    return digest.hexdigest()


def _room(folder: Path, num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB are needed, and {folder} has {free_bytes(folder) / 1e6:,.1f} MB free"


def reason(error: Exception) -> str:
    """An error's words, and a file's name if it has one."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)

"""An owner's claim on its run directory: kept alive by a thread, and looked at before anything is committed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from launcher.durable import read_plain
from launcher.ownership import RECORD_BYTES, Owner, parse_owner
from launcher.paths import RunPaths

BEAT_S = 2.0
_ENDING_S = 10.0


class OwnershipLostError(RuntimeError):
    """Another start has taken the run directory over, from a process that had stood still for too long."""


@dataclass(frozen=True)
class Claim:
    """A start's claim on the run directory `root`. Picklable: a worker's process checks it as the driver does."""

    root: Path
    number: int
    token: str
    run: str
    """Belongs into each checkpoint's facts, so that another run's is not taken for this one's."""

    @property
    def path(self) -> Path:
        return RunPaths(self.root).claim(self.number)

    def assert_held(self) -> None:
        """Raises OwnershipLostError if the directory is another's by now. One small file is read."""
        owner = read_claim(self.path)
        # The next owner makes its claim first, and then removes this one.
        if owner is None or owner.token != self.token or os.path.lexists(RunPaths(self.root).claim(self.number + 1)):
            raise self._lost()

    def beat(self) -> None:
        """Count up. Raises OwnershipLostError, or OSError of a file system that does not answer."""
        self._rewrite(lambda owner: {"beat": owner.beat + 1})

    def release(self) -> None:
        """Tell those who come that they need not wait. Raises as `beat` does."""
        self._rewrite(lambda _owner: {"released": True})

    def _rewrite(self, changes: Callable[[Owner], dict[str, object]]) -> None:
        """Opened by name each time: on NFS opening asks the server for the truth, and closing tells it."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise self._lost() from None
        try:
            owner = parse_owner(os.pread(descriptor, RECORD_BYTES, 0))
            if owner is None or owner.token != self.token:
                raise self._lost()
            os.pwrite(descriptor, owner.model_copy(update=changes(owner)).to_bytes(), 0)
        finally:
            os.close(descriptor)

    def _lost(self) -> OwnershipLostError:
        return OwnershipLostError(
            f"{self.root} is no longer this process's: it had stood still, or could not reach its files, for so long "
            f"that another start took the run over (its claim {self.path.name} is gone). This one ends here, and "
            f"writes nothing more"
        )


class Heartbeat:
    """Counts up in a claim every `beat_s` seconds, in a thread, while the context lasts; then releases the claim."""

    def __init__(self, claim: Claim, *, beat_s: float = BEAT_S):
        self._claim = claim
        self._beat_s = beat_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.failure: Exception | None = None
        """Why it has stopped: the claim is lost, or something nobody foresaw."""

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_ENDING_S)  # It is a daemon: a file system that hangs shall not hold the process.
        # Whoever has taken over needs no word from us; where the disk fails, silence will tell.
        with suppress(OwnershipLostError, OSError):
            self._claim.release()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._beat_s):
                try:
                    self._claim.beat()
                except OSError:
                    continue  # It may answer again in time; if not, `assert_held` finds the new owner.
        except Exception as error:
            self.failure = error


def read_claim(path: Path) -> Owner | None:
    """The owner that the claim at `path` names; None if there is none, or it says nothing sensible.

    Raises StrangeFileError.
    """
    try:
        return parse_owner(read_plain(path, max_bytes=RECORD_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # Removed just now; NFS has its own word for that.
            return None
        raise

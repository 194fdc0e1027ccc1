"""What a run rests on, judged from facts that others have gathered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from launcher.file_system import LOCKS_ADVICE, FileSystem

_LITTLE_ROOM_BYTES = 1_000_000_000
_CLOCK_S = 60.0
RAY_OPEN_FILES = 8192
"""What Ray recommends (ray/_private/worker.py)."""
RAY_SHARED_BYTES = 200_000_000
"""Ray's object store as our runs start it takes 100 MB; NCCL and gloo want some, too."""


class Outcome(str, Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True)
class Package:
    """A Python package, imported in a process of its own."""

    name: str
    version: str
    """Empty if it cannot be imported."""
    error: str = ""


@dataclass(frozen=True)
class Host:
    """This machine, as far as a run rests on it."""

    python: tuple[int, int, int]
    packages: tuple[Package, ...]
    gpus: tuple[str, ...]
    """Names of those that torch sees."""
    decoder_error: str
    """Why the C core cannot be imported; empty if it can."""
    has_avx2: bool
    shared_memory_bytes: int
    ray_temp_dir: str
    """Below which Ray's sockets will lie."""
    ray_temp_trouble: str
    open_files: int
    """How many a process may have open, once it has raised its own limit."""


WITHOUT = {
    "ray": "run.mode: ray, several workers, runs on several nodes",
    "ffcv": "data.loader: ffcv",
    "submitit": "resolute submit",
    "timm": "models named timm/..., the optimizers lamb and lars",
    "matplotlib": "curves as PNG",
    "datasets": "resolute data write from Hugging Face data sets",
}
"""What is not possible without a package; nothing is, without one that is not here."""


def judge_file_system(facts: FileSystem, *, newest_checkpoint_bytes: int) -> list[Finding]:
    """`newest_checkpoint_bytes` is what the run's newest checkpoint takes; 0 if it has none."""
    place = str(facts.directory)
    other = "give the run a directory on a local disk, NFS (v3 or later), Lustre, GPFS or BeeGFS"
    flush = "a crash of the machine may cost the newest checkpoint; take another file system, or another mount option"
    lag = "checkpoints that the events tell of are found all the same; look at the mount options (NFS: acdirmax)"
    locks = f"runs on several nodes do not start there: {LOCKS_ADVICE}"
    clock = "nothing is decided by comparing clocks, but logs and `make` will mislead: run ntp or chrony on both"
    ahead_s = facts.clock_ahead_s
    told = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this host's"
    return [
        _promise("rename", facts.rename, f"atomic in {place}", Outcome.FAILED, other),
        _promise("exclusive creation", facts.exclusive, "one of two succeeds", Outcome.FAILED, other),
        _promise("flush", facts.flush, "files and directories", Outcome.WARNING, flush),
        _promise("listing", facts.listing, "shows a new file at once", Outcome.WARNING, lag),
        _promise("locks", facts.locks, "flock works, as seen from this host", Outcome.WARNING, locks),
        _promise("clock", told if abs(ahead_s) > _CLOCK_S else "", told, Outcome.WARNING, clock),
        _judge_room(facts.free_bytes, newest_checkpoint_bytes),
    ]


def judge_unwritable(directory: str, error: str) -> list[Finding]:
    """The file system, where nothing could be tried."""
    return [Finding("run directory", Outcome.FAILED, f"{directory}: {error}", "give a directory that you can write to")]


def _judge_room(free: int, checkpoint: int) -> Finding:
    found, advice = f"{free / 1e9:,.1f} GB free", "make room, or lower checkpoint.keep_last"
    if checkpoint:
        found += f", a checkpoint takes {checkpoint / 1e9:,.2f} GB"
    if free < checkpoint:
        return Finding("room", Outcome.FAILED, found, advice)
    if free < max(2 * checkpoint, _LITTLE_ROOM_BYTES):
        return Finding("room", Outcome.WARNING, found, advice)
    return Finding("room", Outcome.OK, found)


def _promise(check: str, trouble: str, kept: str, otherwise: Outcome, advice: str) -> Finding:
    return Finding(check, otherwise, trouble, advice) if trouble else Finding(check, Outcome.OK, kept)


def judge_host(facts: Host) -> list[Finding]:
    """Software and machine."""
    return [
        _judge_python(facts.python),
        *(_judge_package(package) for package in facts.packages),
        _judge_decoder(facts),
        _judge_gpus(facts.gpus),
        _judge_shared_memory(facts.shared_memory_bytes),
        _judge_temp_dir(facts.ray_temp_dir, facts.ray_temp_trouble),
        _judge_open_files(facts.open_files),
    ]


def _judge_python(version: tuple[int, int, int]) -> Finding:
    found = ".".join(map(str, version))
    if version < (3, 10):
        return Finding("python", Outcome.FAILED, found, "use Python 3.10 or later")
    return Finding("python", Outcome.OK, found)


def _judge_package(package: Package) -> Finding:
    if package.version:
        return Finding(package.name, Outcome.OK, package.version)
    found, missing = package.error or "not installed", WITHOUT.get(package.name)
    if missing is None:
        return Finding(package.name, Outcome.FAILED, found, f"pip install {package.name}: nothing trains without it")
    return Finding(package.name, Outcome.WARNING, found, f"pip install {package.name} for: {missing}")


def _judge_decoder(facts: Host) -> Finding:
    if facts.decoder_error:
        advice = "install resolute again, with a C compiler and libjpeg's headers at hand"
        return Finding("decoder", Outcome.FAILED, facts.decoder_error, advice)
    if facts.has_avx2:
        return Finding("decoder", Outcome.OK, "compiled, uses AVX2")
    return Finding("decoder", Outcome.WARNING, "compiled, no AVX2 here", "give more data.decode_threads_per_worker")


def _judge_gpus(gpus: Sequence[str]) -> Finding:
    if gpus:
        return Finding("GPUs", Outcome.OK, f"{len(gpus)}: {', '.join(dict.fromkeys(gpus))}")
    advice = "runs train on the CPU here; where there are GPUs, look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    return Finding("GPUs", Outcome.WARNING, "torch sees none", advice)


def _judge_shared_memory(num_bytes: int) -> Finding:
    found = f"/dev/shm has {num_bytes / 1e6:,.0f} MB free"
    if num_bytes < RAY_SHARED_BYTES:
        advice = f"Ray wants {RAY_SHARED_BYTES / 1e6:,.0f} MB and would use the disk; give containers --shm-size"
        return Finding("shared memory", Outcome.WARNING, found, advice)
    return Finding("shared memory", Outcome.OK, found)


def _judge_temp_dir(directory: str, trouble: str) -> Finding:
    if trouble:
        advice = "Ray's sockets lie there: make it writable, or set TMPDIR to a short path that is (19 letters at most)"
        return Finding("temporary files", Outcome.FAILED, f"{directory}: {trouble}", advice)
    return Finding("temporary files", Outcome.OK, f"{directory}, short enough for Ray's sockets")


def _judge_open_files(limit: int) -> Finding:
    found = f"{limit:,} a process"
    if limit < RAY_OPEN_FILES:
        return Finding("open files", Outcome.WARNING, found, f"raise the hard limit to {RAY_OPEN_FILES} for Ray")
    return Finding("open files", Outcome.OK, found)

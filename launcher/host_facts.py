"""Gathers what `resolute doctor` judges of this machine."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from launcher.doctor import Host, Package

_NEEDED = ("torch", "torchvision")
_OPTIONAL = ("ray", "ffcv", "submitit", "timm", "matplotlib", "datasets")
_IMPORT_S = 300.0
"""A cold shared file system, or a machine that is busy, may take a minute."""
_AT_ONCE = 4


def gather_host(*, ray_temp_dir: str) -> Host:
    """Imports each package in a process of its own: one that is broken may take its process with it. Takes seconds."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        gpus = pool.submit(_gpus)
        packages = tuple(pool.map(look_at_package, (*_NEEDED, *_OPTIONAL)))
    return Host(
        python=sys.version_info[:3],
        packages=packages,
        gpus=gpus.result(),
        decoder_error=_run("import ffcv_datasets._decode._core")[1],
        has_avx2=_has_avx2(),
        shared_memory_bytes=_free_bytes("/dev/shm"),
        ray_temp_dir=ray_temp_dir,
        ray_temp_trouble=_writing_trouble(ray_temp_dir),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def look_at_package(name: str) -> Package:
    """Its version, or the last line of why it cannot be imported."""
    told, error = _run(f"import {name}; from importlib.metadata import version; print(version({name!r}))")
    return Package(name, "" if error else told[-1], error)


def _gpus() -> tuple[str, ...]:
    script = (
        "import json, torch; c = torch.cuda; print(json.dumps([c.get_device_name(i) for i in range(c.device_count())]))"
    )
    told, error = _run(script)
    return () if error else tuple(json.loads(told[-1]))


def _run(script: str) -> tuple[Sequence[str], str]:
    """What a Python process has printed, and the last line of its error; empty if it ended well."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return [], f"not imported within {_IMPORT_S:g} s"
    if done.returncode == 0:
        return done.stdout.splitlines(), ""
    said = done.stderr.strip().splitlines()
    return [], said[-1] if said else f"ended by signal {-done.returncode}"


def _has_avx2() -> bool:
    """As the C core asks the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("flags") and "avx2" in line.split() for line in lines)


def _free_bytes(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _writing_trouble(directory: str) -> str:
    try:
        with tempfile.TemporaryDirectory(dir=directory):
            return ""
    except OSError as error:
        return str(error.strerror)

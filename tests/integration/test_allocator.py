"""Freed memory stays with the process, for its next step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEP_MIB = 128
STEPS = f"""
import sys
import psutil, torch
from launcher.allocator import keep_freed_memory

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False

def resident():
    return psutil.Process().memory_info().rss // 2**20

tensors = [torch.ones(2**22) for _ in range({STEP_MIB} // 16)]
during = resident()
del tensors
print(kept, during - resident())
"""


def step(what: str, **environment: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and how many MiB a step's process has given back after it."""
    command = [sys.executable, "-c", STEPS, what]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    kept, given_back = done.stdout.split()
    return kept == "True", int(given_back)


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="another C library")
def test_memory_of_one_step_stays_for_the_next() -> None:
    (left, given_back), (kept, held_back) = step("leave"), step("keep")
    assert kept
    assert not left
    assert given_back > STEP_MIB * 7 // 8
    assert held_back < STEP_MIB // 8


def test_who_has_set_up_the_allocator_keeps_his_settings() -> None:
    assert step("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] is False

"""Freed memory stays with the process, for its next step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEPS = """
import sys, threading
import psutil, torch
from launcher.allocator import keep_freed_memory

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False

def resident():
    return psutil.Process().memory_info().rss // 2**20

def given_back(mib):
    tensors = [torch.ones(mib * 2**18) for _ in range(128 // mib)]
    during = resident()
    while tensors:
        tensors.pop()
    return during - resident()

def steps():
    print(kept, sum(given_back(mib) for mib in (8, 4, 12, 2) for _ in range(3)))

if sys.argv[2] == "main":
    steps()
else:
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
"""


def work(what: str, *, thread: str = "main", **environment: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and how many MiB twelve steps of 128 MiB give back after them."""
    command = [sys.executable, "-c", STEPS, what, thread]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    kept, given_back = done.stdout.split()
    return kept == "True", int(given_back)


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="another C library")
@pytest.mark.parametrize("thread", ["main", "another"])  # Ray has a thread train
def test_memory_of_one_step_stays_for_the_next(thread: str) -> None:
    assert work("leave", thread=thread)[1] > 64
    kept, given_back = work("keep", thread=thread)
    assert kept
    assert given_back < 16


def test_who_has_set_up_the_allocator_keeps_his_settings() -> None:
    assert work("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] is False

"""Freed memory stays with the process, and is used again without a page fault."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from launcher.allocator import keep_freed_memory

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False

def step():
    return [torch.ones(2**22) for _ in range(8)]  # 16 MiB each; all are freed together

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **environment: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", STEPS, what]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept == "True", int(number)


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="another C library")
def test_memory_of_one_step_serves_the_next() -> None:
    (_, left), (kept, number) = faults("leave"), faults("keep")
    assert kept
    assert number < left / 4


def test_who_has_set_up_the_allocator_keeps_his_settings() -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] is False

"""The C library's allocator, told to keep freed memory for the tensors to come."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 2**30
_THREADS_HEAP_BYTES = 64 * 2**20
"""The memory of threads other than the first, as Ray's that trains, comes in heaps of this size."""
_LARGEST_ON_HEAP_BYTES = 32 * 2**20
"""The most that glibc takes; larger tensors are mapped one by one."""
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GiB that is free at its heap's end; False where another C library or the user decides.

    By default it hands the memory of a step's activations back to the kernel, which has to clear each page anew in the
    next step. Whether it does depends on what was allocated before, so workers differ, and change with the images' size
    (mallopt(3), M_TRIM_THRESHOLD). A thread's heap that is wholly free goes back whatever that threshold is, unless so
    much is to be left in the heap before it (M_TOP_PAD).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in _USERS_OWN):
        return False
    settings = {
        _M_TRIM_THRESHOLD: _KEPT_BYTES,
        _M_TOP_PAD: _THREADS_HEAP_BYTES,
        _M_MMAP_THRESHOLD: _LARGEST_ON_HEAP_BYTES,
    }
    return all(mallopt(name, value) for name, value in settings.items())

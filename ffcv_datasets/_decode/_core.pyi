"""The C core, built from the .c files beside this one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

class _Pool: ...

def pool(threads: int, plain: bool = False) -> _Pool:
    """What decode() needs: its threads start with the first batch of each process and end with it.

    A plain one decodes without AVX2 and with libjpeg's own entropy decoding: slower, to the same bits.
    """

def decode(
    pool: _Pool, file: int, samples: NDArray[Any], images: NDArray[Any], height: int, width: int
) -> list[tuple[int, str]]:
    """Fill images (N, height, width, 3) as samples (N,) say; returns index and reason of each failure."""

def add_restarts(jpeg: bytes) -> tuple[bytes, bytes]:
    """The same pixels with restart markers, and the index of these; empty where the decoder could not use it.

    Raises ValueError for damaged files and for those of more than three colours.
    """

def philox(words: NDArray[np.uint32], key: int) -> None:
    """Overwrite counters (..., 4) with the random words that philox.philox4x32 gives for them under a 64-bit key."""

def checksum(data: bytes | NDArray[Any]) -> int:
    """XXH64."""

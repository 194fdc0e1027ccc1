"""Which samples, in which order, for whom: a permutation per epoch, cut into global batches and ranks' slices."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.philox import sample_words

Indices = NDArray[np.int64]

_ORDER_STREAM = 1 << 17  # away from the crop's and the flip's, which use the same seed
_WINDOW_STREAM = _ORDER_STREAM + 1


def order(seed: int, epoch: int, num_samples: int, *, window: int | None = None) -> Indices:
    """The order in which `epoch` visits its samples: a permutation, (num_samples,) int64.

    Samples are sorted by 64 random bits drawn from a counter-based generator at (seed, epoch, sample), so the result
    depends on no library's shuffle and is the same on every rank, machine and version.

    With `window`, only stretches of so many neighbours in the file are shuffled, and the stretches among each other:
    all ranks then read from the same part of a file that memory does not hold. Where the stretches begin differs
    between epochs, so that nobody's neighbours are always the same.
    """
    samples = np.arange(num_samples, dtype=np.int64)
    keys = _random_bits(seed, epoch, samples, _ORDER_STREAM)
    if window is None or window >= num_samples:
        return np.argsort(keys, kind="stable").astype(np.int64)
    shift = int(_random_bits(seed, epoch, np.array([num_samples]), _WINDOW_STREAM)[0] % np.uint64(window))
    stretches = (samples + shift) // window
    turns = _random_bits(seed, epoch, np.arange(stretches[-1] + 1), _WINDOW_STREAM)
    return np.lexsort((keys, stretches, turns[stretches])).astype(np.int64)


def _random_bits(seed: int, epoch: int, numbers: Indices, stream: int) -> NDArray[np.uint64]:
    """64 of them for each number, (N,)."""
    words = sample_words(seed, epoch, numbers, stream=stream).astype(np.uint64)
    bits: NDArray[np.uint64] = words[:, 0] << np.uint64(32) | words[:, 1]
    return bits


def rank_batches(
    epoch_order: Indices, *, start: int, until: int, global_batch: int, rank: int, world_size: int, accumulate: int = 1
) -> list[Indices]:
    """The batches of one rank between two places of an epoch, which count samples over all ranks.

    Rank r's part of a global batch is its r-th contiguous slice, (global_batch / world_size,), in `accumulate` batches.
    """
    assert global_batch % (world_size * accumulate) == 0, (global_batch, world_size, accumulate)
    assert (until - start) % global_batch == 0, (start, until, global_batch)
    assert until <= len(epoch_order), (until, len(epoch_order))
    share = global_batch // world_size
    batch = share // accumulate
    firsts = range(start + rank * share, until + rank * share, global_batch)
    return [epoch_order[at : at + batch] for first in firsts for at in range(first, first + share, batch)]


def evaluation_batches(num_samples: int, *, batch: int, rank: int, world_size: int) -> list[Indices]:
    """One rank's share of an evaluation: every sample once over all ranks, in order, nothing padded or repeated."""
    share = np.array_split(np.arange(num_samples, dtype=np.int64), world_size)[rank]
    return [share[first : first + batch] for first in range(0, len(share), batch)]


def order_hash(epoch_order: Indices) -> str:
    """A short fingerprint of an order, for ranks to compare."""
    return hashlib.sha256(np.ascontiguousarray(epoch_order, dtype="<i8").tobytes()).hexdigest()[:16]

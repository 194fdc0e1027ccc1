"""Philox4x32-10: random words as a pure function of a counter and a key.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Having no state, it gives a
sample the same words in whichever thread, worker, batch or resumed run the sample is read.
"""

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets._decode import _core

_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEP0, _KEY_STEP1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_LOW, _HIGH_SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Four random words (..., 4) for each counter (..., 4) under one key of two 32-bit words.

    Its twin in C, which is what everybody calls, is held against it.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIER0, c2 * _MULTIPLIER1
        c0, c1 = (product1 >> _HIGH_SHIFT) ^ c1 ^ k0, product1 & _LOW
        c2, c3 = (product0 >> _HIGH_SHIFT) ^ c3 ^ k1, product0 & _LOW
        k0, k1 = (k0 + _KEY_STEP0) & _LOW, (k1 + _KEY_STEP1) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def sample_words(seed: int, epoch: int, samples: NDArray[np.int64], stream: int) -> NDArray[np.uint32]:
    """Four random words (N, 4) for each sample of an epoch; independent draws use different streams.

    `seed` is the 64-bit key; the counter is (sample low, sample high, epoch, stream).
    """
    counter = np.empty((len(samples), 4), np.uint32)
    counter[:, 0] = samples & 0xFFFFFFFF
    counter[:, 1] = samples >> 32
    counter[:, 2] = epoch
    counter[:, 3] = stream
    _core.philox(counter, seed)
    return counter

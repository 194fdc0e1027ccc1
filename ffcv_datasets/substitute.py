"""Which sample stands in for a damaged one: a pure function of (seed, epoch, sample)."""

import numpy as np
from numpy.typing import NDArray

from ffcv_datasets.crop import TrainView, View
from ffcv_datasets.philox import sample_words

MAX_ATTEMPTS = 32
"""With half of a file damaged, one sample in four thousand millions finds none."""

_STREAM = 1 << 18  # away from the streams of crop, flip and order


def substitutes(view: View, samples: NDArray[np.int64], attempt: int, *, num_samples: int) -> NDArray[np.int64]:
    """The `attempt`-th candidate (N,) for each of the damaged samples (N,), drawn evenly from the whole file.

    Drawn, rather than the next sample: damage lies in stretches, and what a cut file still holds should stand in
    evenly. An evaluation has neither seed nor epoch, so its candidates are always the same.
    """
    seed, epoch = (view.seed, view.epoch) if isinstance(view, TrainView) else (0, 0)
    words = sample_words(seed, epoch, samples, _STREAM + attempt)[:, 0]
    chosen: NDArray[np.uint64] = words.astype(np.uint64) * np.uint64(num_samples) >> np.uint64(32)
    return chosen.astype(np.int64)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffcv_datasets._decode import _core
from ffcv_datasets.philox import philox4x32, sample_words

# From the known-answer file of Random123, the authors' library: counter, key, result after 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = words(key)
    assert philox4x32(np.array(words(counter), np.uint32), (k0, k1)).tolist() == words(answer)


@given(seed=st.integers(0, 2**32 - 1), key=st.integers(0, 2**64 - 1), num=st.integers(0, 9))
def test_c_and_python_give_the_same_words(seed: int, key: int, num: int) -> None:
    counters = np.random.default_rng(seed).integers(0, 2**32, (num, 4), np.uint32)
    expected = philox4x32(counters, (key & 0xFFFFFFFF, key >> 32))
    _core.philox(counters, key)
    assert (counters == expected).all()


def test_a_sample_has_the_words_of_its_counter() -> None:
    [words_of_it] = sample_words(3 + 5 * 2**32, 7, np.array([11 + 13 * 2**32]), 17)
    assert (words_of_it == philox4x32(np.array([11, 13, 7, 17], np.uint32), (3, 5))).all()


def test_many_counters_at_once_equal_one_at_a_time() -> None:
    counters = np.arange(40, dtype=np.uint32).reshape(2, 5, 4)
    together = philox4x32(counters, (7, 9))
    assert together.shape == (2, 5, 4)
    assert (together[1, 3] == philox4x32(counters[1, 3], (7, 9))).all()


def test_seed_epoch_sample_and_stream_each_change_the_words() -> None:
    samples = np.array([3, 3 + 2**32, 4])
    base = sample_words(5, 6, samples, 0)
    others = [sample_words(5 + 2**32, 6, samples, 0), sample_words(5, 7, samples, 0), sample_words(5, 6, samples, 1)]
    rows = np.concatenate([base, *others])
    assert len(np.unique(rows, axis=0)) == len(rows)

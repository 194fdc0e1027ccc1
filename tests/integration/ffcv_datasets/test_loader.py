import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ffcv_datasets.crop import CentreView, TrainView, View
from ffcv_datasets.decoder import DataError
from ffcv_datasets.loader import Loader
from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.ffcv_datasets.pictures import draw, jpeg, write_pictures

VIEW = TrainView(seed=1, epoch=2, resolution=32)


def indices(num_batches: int, batch: int = 4) -> list[NDArray[np.int64]]:
    return [np.arange(i, i + batch) % 10 for i in range(num_batches)]


def images(loader: Loader, samples: list[NDArray[np.int64]], view: View = VIEW) -> NDArray[np.uint8]:
    """All images of the batches, in order."""
    with loader.batches(samples, view) as batches:
        return np.concatenate([batch.images.copy() for batch in batches])


def num_threads() -> int:
    """Of the process: Python's and the decoder's."""
    return len(os.listdir("/proc/self/task"))


def test_batches_come_in_order_with_their_labels(stock_files: StockFiles) -> None:
    samples = [np.array([3, 1]), np.array([9]), np.array([0, 2, 1])]
    with Loader(stock_files["jpg"], threads=2) as loader:
        assert loader.num_samples == 10
        batches = loader.batches(samples, VIEW)
        assert len(batches) == 3
        for expected, batch in zip(samples, batches, strict=True):
            assert batch.samples.tolist() == expected.tolist()
            assert batch.labels.tolist() == (7 * expected - 3).tolist()
            assert batch.images.shape == (len(expected), 32, 32, 3)


@pytest.mark.parametrize("name", ["jpg", "raw", "proportion", "smart"])
@pytest.mark.parametrize("view", [VIEW, CentreView(48)])
def test_images_depend_on_neither_threads_nor_batches_nor_start(stock_files: StockFiles, name: str, view: View) -> None:
    order = np.random.default_rng(0).permutation(10)
    with Loader(stock_files[name]) as loader:
        whole = images(loader, [order], view)
    with Loader(stock_files[name], threads=3, batches_ahead=1) as loader:
        assert (images(loader, np.array_split(order, 4), view) == whole).all()
        assert (images(loader, [order[6:8], order[8:]], view) == whole[6:]).all()


def test_training_and_evaluation_may_take_turns(stock_files: StockFiles) -> None:
    with Loader(stock_files["jpg"], threads=2) as train, Loader(stock_files["raw"], threads=2) as val:
        expected = [images(train, indices(9)), images(train, indices(9), CentreView(64)), images(val, indices(9))]
        iterators = [
            train.batches(indices(9), VIEW),
            train.batches(indices(9), CentreView(64)),
            val.batches(indices(9), VIEW),
        ]
        rounds = [[batch.images.copy() for batch in batches] for batches in zip(*iterators, strict=True)]
        for found, right in zip(zip(*rounds, strict=True), expected, strict=True):
            assert (np.concatenate(found) == right).all()


def test_changing_size_and_batch_starts_no_thread_and_keeps_the_memory(stock_files: StockFiles) -> None:
    with Loader(stock_files["jpg"], threads=3) as loader:
        images(loader, indices(8, batch=6), CentreView(64))
        threads = num_threads()
        addresses: set[int] = set()
        for change in range(50):
            view = TrainView(0, change, 16 + change % 48)
            with loader.batches(indices(6, batch=1 + change % 6), view) as batches:
                addresses.update(batch.images.ctypes.data for batch in batches)
        assert num_threads() < threads + 5  # a thread that has ended may be listed for a moment
        assert len(addresses) <= 4  # three ahead and one in use


def test_leaving_early_ends_the_thread(stock_files: StockFiles) -> None:
    with Loader(stock_files["jpg"]) as loader:
        before = threading.active_count()
        for _ in range(3):
            for batch in loader.batches(indices(50), VIEW):
                first = batch.images.copy()
                break
        assert threading.active_count() == before
        assert (batch.images == first).all()  # not handed on while it can still be seen
        iterator = loader.batches(indices(50), VIEW)
        iterator.close()
        iterator.close()
        assert threading.active_count() == before
        assert list(iterator) == []


def test_the_next_iterator_begins_where_the_last_one_has_been_decoded_in_the_same_memory(
    stock_files: StockFiles,
) -> None:
    views = [TrainView(1, epoch, 32) for epoch in range(5)]
    with Loader(stock_files["jpg"]) as loader:
        expected = [images(loader, indices(6), view) for view in views]
        addresses = set()
        current = loader.batches(indices(6), views[0])
        for epoch, right in enumerate(expected):
            following = loader.batches(indices(6), views[epoch + 1], after=current) if epoch < 4 else None
            found = []
            for batch in current:
                found.append(batch.images.copy())
                addresses.add(batch.images.ctypes.data)
            assert (np.concatenate(found) == right).all()
            current = following or current
        assert len(addresses) <= 4
        assert len(loader._idle) == 4


@pytest.mark.parametrize("end_first", [True, False])
def test_of_two_iterators_in_a_row_either_may_be_left_early(stock_files: StockFiles, end_first: bool) -> None:
    before = threading.active_count()
    with Loader(stock_files["jpg"]) as loader:
        right = images(loader, indices(6))
        first = loader.batches(indices(50), VIEW)
        next(first)
        second = loader.batches(indices(6), VIEW, after=first)
        if end_first:
            assert (np.concatenate([batch.images.copy() for batch in second]) == right).all()
            assert list(first) == []
        else:
            second.close()
            third = loader.batches(indices(6), VIEW, after=first)
            assert len(list(first)) == 49
            assert (np.concatenate([batch.images.copy() for batch in third]) == right).all()
        assert threading.active_count() == before
        again = loader.batches(indices(6), VIEW, after=first)  # whose memory has been handed on already
        assert len(list(again)) == 6
        assert len(loader._idle) == 4


def test_memory_is_of_the_given_kind_and_of_one_size(stock_files: StockFiles) -> None:
    taken = []

    def allocate(num_bytes: int) -> NDArray[np.uint8]:
        taken.append(num_bytes)
        return np.empty(num_bytes, np.uint8)

    largest = 6 * 64 * 64 * 3
    with Loader(stock_files["jpg"], batches_ahead=2, largest_batch_bytes=largest, allocate=allocate) as loader:
        for resolution in (16, 32, 64):
            images(loader, indices(6, batch=6), CentreView(resolution))
    assert taken == [largest] * 3


def test_closing_the_loader_closes_its_iterators(stock_files: StockFiles) -> None:
    before = threading.active_count()
    with Loader(stock_files["jpg"]) as loader:
        iterator = loader.batches(indices(50), VIEW)
    assert threading.active_count() == before
    assert list(iterator) == []


def test_a_damaged_sample_reaches_the_consumer_at_its_batch(tmp_path: Path) -> None:
    good = jpeg(draw(60, 50))
    path = write_pictures(tmp_path / "a.beton", [(good, 60, 50)] * 6 + [(good[:300] + bytes(900), 60, 50)])
    with Loader(path, threads=2) as loader:
        before = threading.active_count()
        batches = loader.batches([np.array([0, 1]), np.array([2, 6]), np.array([3])], VIEW)
        assert next(batches).labels.tolist() == [0, 1]
        with pytest.raises(DataError, match=r"a\.beton: sample 6 "):
            next(batches)
        assert list(batches) == []
        assert threading.active_count() == before


def damaged_file(folder: Path, damaged: set[int]) -> Path:
    """Twelve pictures, of which some cannot be decoded."""
    stored = [jpeg(draw(60, 50, seed)) for seed in range(12)]
    return write_pictures(
        folder / "a.beton",
        [(data[:300] + bytes(900) if i in damaged else data, 60, 50) for i, data in enumerate(stored)],
    )


def test_sound_samples_stand_in_for_damaged_ones_and_are_told(tmp_path: Path) -> None:
    damaged = {2, 6, 7, 8}
    samples = [np.arange(12), np.array([6, 0, 6])]
    with Loader(damaged_file(tmp_path, damaged), skip_corrupt=True) as loader:
        for batch, wanted in zip(loader.batches(samples, VIEW), samples, strict=True):
            assert [error.sample for error in batch.replaced] == [i for i in wanted if i in damaged]
            assert not damaged & set(batch.samples)
            sound = ~np.isin(wanted, list(damaged))
            assert (batch.samples[sound] == wanted[sound]).all()
            assert (batch.labels == batch.samples).all()
            assert (batch.images == images(loader, [batch.samples])).all()


def test_who_stands_in_depends_on_neither_threads_nor_batches_nor_start(tmp_path: Path) -> None:
    path = damaged_file(tmp_path, {2, 6, 7, 8})
    order = np.random.default_rng(0).permutation(12)

    def shown(threads: int, samples: list[NDArray[np.int64]], epoch: int = 2) -> NDArray[np.int64]:
        with Loader(path, threads=threads, skip_corrupt=True) as loader:
            return np.concatenate([batch.samples for batch in loader.batches(samples, TrainView(1, epoch, 32))])

    whole = shown(1, [order])
    assert (shown(3, np.array_split(order, 5)) == whole).all()
    assert (shown(2, [order[7:]]) == whole[7:]).all()
    assert any((shown(1, [order], epoch) != whole).any() for epoch in range(3, 8))


def test_without_a_sound_sample_the_damage_is_an_error_after_all(tmp_path: Path) -> None:
    with (
        Loader(damaged_file(tmp_path, set(range(12))), skip_corrupt=True) as loader,
        pytest.raises(DataError, match=r"a\.beton: sample 3 "),
    ):
        list(loader.batches([np.array([3, 4])], VIEW))


def test_a_file_that_shrinks_while_read_names_the_sample(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.beton", [(jpeg(draw(60, 50)), 60, 50)] * 3)
    with Loader(path) as loader:
        os.truncate(path, 5000)
        with pytest.raises(DataError, match=r"a\.beton: sample 2 .*cut after it had been opened"):
            list(loader.batches([np.array([2])], VIEW))


def test_wrong_requests_are_refused_at_once(stock_files: StockFiles) -> None:
    with Loader(stock_files["jpg"]) as loader, pytest.raises(ValueError, match=r"asked for samples 3 \.\. 10"):
        loader.batches([np.array([3, 10])], VIEW)
    with pytest.raises(ValueError, match="batches_ahead: 0"):
        Loader(stock_files["jpg"], batches_ahead=0)


_FORK = """
import os, sys, warnings
import numpy as np
from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader
warnings.simplefilter("ignore")  # of a fork beside threads: what is tried here
view, samples = TrainView(1, 2, 32), [np.arange(10)] * 4
loader = Loader(sys.argv[1], threads=3)
expected = next(loader.batches(samples, view)).images.copy()
ours = loader.batches(samples, view)
child = os.fork()
if not child:
    same = all((batch.images == expected).all() for batch in loader.batches(samples, view))
    try:
        next(ours)
    except RuntimeError:
        loader.close()
        os._exit(0 if same else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert all((batch.images == expected).all() for batch in ours)
"""


def run_script(script: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)


def test_a_used_loader_works_in_a_forked_child(stock_files: StockFiles) -> None:
    run_script(_FORK, stock_files["jpg"])


_EXIT = """
import sys
import numpy as np
from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader
iterator = Loader(sys.argv[1], threads=2).batches([np.arange(10)] * 90, TrainView(1, 2, 32))
next(iterator)
assert not {"torch", "numba", "ffcv"} & set(sys.modules)
"""


def test_a_process_ends_though_an_iterator_is_open(stock_files: StockFiles) -> None:
    run_script(_EXIT, stock_files["jpg"])

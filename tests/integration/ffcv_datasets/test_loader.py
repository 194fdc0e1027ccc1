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

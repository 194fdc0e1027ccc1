"""Workers in processes of their own, forked and spawned: the same batches, bit for bit, however many they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ffcv_datasets.conftest import StockFiles

_WORKERS = """
import multiprocessing, sys, warnings
import numpy as np
from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader
from launcher.sample_order import order, rank_batches

GLOBAL_BATCH, EPOCH_SAMPLES = 4, 8
warnings.simplefilter("ignore")  # of a fork beside threads: what is tried here
loader = None

def share(task):
    path, rank, world_size, start = task
    source = loader or Loader(path, threads=1 + rank)
    epoch_order = order(5, 6, 10)
    batches = rank_batches(epoch_order, start=start, until=EPOCH_SAMPLES, global_batch=GLOBAL_BATCH,
                           rank=rank, world_size=world_size)
    view = TrainView(5, 6, 40)
    return [(b.images.copy(), b.labels) for b in source.batches(batches, view)]

def global_batches(method, path, world_size, start):
    tasks = [(path, rank, world_size, start) for rank in range(world_size)]
    with multiprocessing.get_context(method).Pool(world_size) as pool:
        shares = pool.map(share, tasks, chunksize=1)
    return [(np.concatenate([s[0] for s in step]), np.concatenate([s[1] for s in step])) for step in zip(*shares)]

if __name__ == "__main__":
    method, path = sys.argv[1:]
    if method == "fork":
        loader = Loader(path, threads=2)
        next(loader.batches([np.arange(3)], TrainView(0, 0, 8)))  # its threads are the parent's alone
    whole = global_batches(method, path, 1, 0)
    assert len(whole) == 2
    for world_size, start in [(2, 0), (4, 0), (2, 4)]:
        for found, right in zip(global_batches(method, path, world_size, start), whole[start // 4 :], strict=True):
            assert all((a == b).all() for a, b in zip(found, right))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_one_two_and_four_workers_make_the_same_batches_from_any_start(
    stock_files: StockFiles, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "workers.py"
    script.write_text(_WORKERS)
    command = [sys.executable, str(script), method, str(stock_files["jpg"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

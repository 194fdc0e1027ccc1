"""Our decoder in FFCV's loader, and FFCV's loader behind our face; in processes of their own, for FFCV's import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ffcv_datasets.conftest import StockFiles
from tests.integration.toy import JOB, resolute, write_job

_OPERATION = """
import sys, warnings
warnings.simplefilter("ignore")  # FFCV's
import numpy as np
from ffcv.fields.decoders import IntDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv_datasets.crop import CentreView, TrainView
from ffcv_datasets.ffcv_operation import ResoluteDecoder
from ffcv_datasets.loader import Loader as OurLoader

path = sys.argv[1]
views = [TrainView(1, 0, 32), TrainView(1, 1, 32), TrainView(1, 2, 48, crop_scale=(0.5, 1)), CentreView(16)]
decoder = ResoluteDecoder(path, views[0], threads=2)
pipelines = {"image": [decoder, ToTensor()], "label": [IntDecoder(), ToTensor()]}
theirs = Loader(path, batch_size=4, num_workers=2, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines)
samples = [np.arange(4), np.arange(4, 8), np.arange(8, 10)]
with OurLoader(path) as ours:
    for view in views:
        decoder.view = view
        found = [(images.numpy().copy(), labels.numpy().ravel().copy()) for images, labels in theirs]
        for batch, (images, labels) in zip(ours.batches(samples, view), found, strict=True):
            assert (batch.images == images).all()
            assert (batch.labels == labels).all()
"""

_LOADER = """
import sys, threading, warnings
warnings.simplefilter("ignore")  # FFCV's
import numpy as np
from ffcv_datasets.crop import CentreView, TrainView
from ffcv_datasets.ffcv_loader import FfcvLoader
from ffcv_datasets.loader import Loader

path = sys.argv[1]
samples = [np.array([3, 1, 9, 0]), np.array([8, 2, 6, 5]), np.array([7])]  # FFCV aborts on sample 4, of 1 x 1 pixels
with FfcvLoader(path, threads=1) as ffcv, Loader(path) as ours:
    assert (ffcv.num_samples, ffcv.batches_ahead) == (10, 3)
    for view in (CentreView(24), CentreView(16), TrainView(0, 0, 32)):
        for theirs, batch in zip(ffcv.batches(samples, view), ours.batches(samples, view), strict=True):
            assert (theirs.labels == batch.labels).all()
            assert (theirs.samples == batch.samples).all()
            assert theirs.images.shape == batch.images.shape
            if view == CentreView(16):  # the same but for FFCV's faster DCT, our DCT scales, and what enlarging does
                assert abs(theirs.images.astype(int) - batch.images).mean() < 10
    before = threading.active_count()
    left = ffcv.batches(samples[:2] * 20, view)
    next(left)
    left.close()
    left.close()
    assert list(left) == [] and threading.active_count() == before
"""


@pytest.mark.parametrize("script", [_OPERATION, _LOADER], ids=["operation", "loader"])
def test_ffcv_and_ours_agree(stock_files: StockFiles, script: str) -> None:
    command = [sys.executable, "-c", script, str(stock_files["jpg"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_a_job_trains_with_ffcvs_loader(drawn: Path, tmp_path: Path) -> None:
    phases = [{"epochs": 1, "resolution": 12, "global_batch": 32}, {"epochs": 1, "resolution": 16, "global_batch": 16}]
    job = write_job(tmp_path, drawn, phases=phases, run={**JOB["run"], "lease_s": 1.0})
    done = resolute("run", job, "data.loader=ffcv", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr

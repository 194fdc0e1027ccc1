"""One epoch after the other out of one feed, as a worker asks for them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ffcv_datasets.batches import BatchIterator
from ffcv_datasets.crop import TrainView
from ffcv_datasets.loader import Loader
from launcher.device_batches import HostTransfer
from launcher.job_file import load_job
from launcher.plan import EpochSpec, Plan
from launcher.planning import build_plan
from launcher.sample_order import order, rank_batches
from launcher.training_feed import TrainingFeed
from tests.integration.toy import write_job


@pytest.fixture
def plan(tmp_path: Path, drawn: Path) -> Plan:
    job = load_job(str(write_job(tmp_path, drawn)), ["phases.1.crop_ratio=[0.5, 0.6]"])
    return build_plan(job, num_samples=250, world_size=2)


def expected_batches(data: Path, plan: Plan, spec: EpochSpec, rank: int) -> list[NDArray[np.uint8]]:
    """An epoch's batches, each decoded for itself."""
    batches = rank_batches(
        order(plan.seed, spec.epoch, 250),
        start=0,
        until=spec.num_samples,
        global_batch=spec.global_batch,
        rank=rank,
        world_size=2,
    )
    view = TrainView(plan.seed, spec.epoch, spec.resolution, crop_scale=spec.crop_scale, crop_ratio=spec.crop_ratio)
    with Loader(data / "train.beton") as loader:
        return [batch.images.copy() for batch in loader.batches(batches, view)]


@pytest.mark.parametrize("transitions", [True, False])
def test_every_epoch_has_its_own_batches_though_begun_ahead(drawn: Path, plan: Plan, transitions: bool) -> None:
    addresses = set()
    with Loader(drawn / "train.beton") as loader:
        feed = TrainingFeed(loader, HostTransfer(), plan=plan, rank=1)
        for spec in plan.rows:
            if transitions:
                in_use = feed.open(spec, 0)
                assert (in_use.resolution, in_use.batch_per_worker) == (spec.resolution, spec.batch_per_worker)
            for step, right in enumerate(expected_batches(drawn, plan, spec, rank=1)):
                batch = feed.next(spec, step * spec.global_batch)
                addresses.add(batch.pixels.data_ptr())
                assert (batch.pixels.numpy() == right).all()
        feed.close()
    assert len(addresses) <= 2 * 4  # four blocks, which have grown once at most


def test_the_next_epochs_first_batches_are_decoded_while_the_last_ones_are_used(drawn: Path, plan: Plan) -> None:
    first, second = plan.rows[0], plan.rows[1]
    with Loader(drawn / "train.beton") as loader:
        feed = TrainingFeed(loader, HostTransfer(), plan=plan, rank=0)
        for done in range(0, first.num_samples, first.global_batch):
            feed.next(first, done)
        assert feed._following is not None
        assert isinstance(feed._following.iterator, BatchIterator)
        made = feed._following.iterator._work.made
        while made.qsize() < loader.batches_ahead:  # nothing but the decoder's thread moves it
            threading.Event().wait(0.01)
        feed.next(second, 0)
        feed.close()
        feed.close()


def test_a_feed_starts_anywhere_and_goes_back(drawn: Path, plan: Plan) -> None:
    before = threading.active_count()
    spec = plan.rows[2]
    expected = expected_batches(drawn, plan, spec, rank=0)
    with Loader(drawn / "train.beton") as loader:
        feed = TrainingFeed(loader, HostTransfer(), plan=plan, rank=0)
        for step in (len(expected) - 1, 3, 4, 0):
            batch = feed.next(spec, step * spec.global_batch)
            assert (batch.pixels.numpy() == expected[step]).all()
        feed.close()
        assert threading.active_count() == before

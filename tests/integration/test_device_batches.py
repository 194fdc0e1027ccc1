"""Batches on their way to a device. The streams are a GPU's; a CPU's have the same names and do nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from ffcv_datasets.crop import CentreView
from ffcv_datasets.loader import Loader
from launcher.device_batches import HostTransfer, StreamedTransfer, Transfer, host_memory, transfer_to

SAMPLES = [np.arange(i, i + 7) for i in range(9)] + [np.array([5])]


def pixels_and_labels(data: Path, device: torch.device, transfer: Transfer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All batches of two sizes, computed on as a training step would."""
    seen = []
    with Loader(data / "train.beton", allocate=host_memory(device), largest_batch_bytes=7 * 24 * 24 * 3) as loader:
        for resolution in (24, 16):
            with (
                loader.batches(SAMPLES, CentreView(resolution)) as decoded,
                closing(transfer.batches(decoded)) as batches,
            ):
                seen += [(batch.pixels.clone().cpu(), batch.labels.clone().cpu()) for batch in batches]
    return seen


def assert_equal(
    found: list[tuple[torch.Tensor, torch.Tensor]], expected: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    for (pixels, labels), (right_pixels, right_labels) in zip(found, expected, strict=True):
        assert torch.equal(pixels, right_pixels)
        assert torch.equal(labels, right_labels)


def test_batches_that_are_copied_equal_those_that_are_not(drawn: Path) -> None:
    cpu = torch.device("cpu")
    assert isinstance(transfer_to(cpu), HostTransfer)
    assert_equal(pixels_and_labels(drawn, cpu, StreamedTransfer(cpu)), pixels_and_labels(drawn, cpu, HostTransfer()))


def test_two_places_on_the_device_hold_all_batches(drawn: Path) -> None:
    transfer = StreamedTransfer(torch.device("cpu"))
    with Loader(drawn / "train.beton") as loader, loader.batches(SAMPLES[:9], CentreView(16)) as decoded:
        addresses = {batch.pixels.data_ptr() for batch in transfer.batches(decoded)}
    assert len(addresses) == 2


def test_a_batch_in_use_stays_as_it_is_while_others_are_asked_for(drawn: Path) -> None:
    transfer = StreamedTransfer(torch.device("cpu"))
    with Loader(drawn / "train.beton") as loader:
        with loader.batches(SAMPLES, CentreView(24)) as decoded, closing(transfer.batches(decoded)) as batches:
            in_use = next(batches)
            before = in_use.pixels.clone(), in_use.labels.clone()
            with loader.batches(SAMPLES[3:], CentreView(24)) as others, closing(transfer.batches(others)) as beside:
                assert len(list(beside)) == len(SAMPLES) - 3
            assert_equal([(in_use.pixels, in_use.labels)], [before])
        assert len(transfer._idle) == 4

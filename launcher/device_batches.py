"""Brings decoded batches to a worker's device: on a GPU from pinned memory, on a stream beside the computing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffcv_datasets.batches import Allocate, Batch
from ffcv_datasets.decoder import DataError


@dataclass(frozen=True)
class DeviceBatch:
    """N samples on the device. They stay as they are until the next batch is asked for."""

    pixels: Tensor
    """(N, resolution, resolution, 3) uint8 RGB."""
    labels: Tensor
    """(N,) int64"""
    replaced: tuple[DataError, ...]
    """What was wrong with the samples in whose place others stand."""
    samples: NDArray[np.int64]
    """(N,) their numbers in the data set, on the host."""


DeviceBatches: TypeAlias = Generator[DeviceBatch, None, None]


class Transfer(Protocol):
    def batches(self, decoded: Iterable[Batch]) -> DeviceBatches:
        """Each decoded batch, on the device. To be closed before `decoded` is: its memory may still be read from."""
        ...


def transfer_to(device: torch.device) -> Transfer:
    """On a CPU batches are used where they lie."""
    return HostTransfer() if device.type == "cpu" else StreamedTransfer(device)


def host_memory(device: torch.device) -> Allocate:
    """What batches for that device are decoded into: memory that a GPU copies from by itself, or any for a CPU."""
    pinned = device.type == "cuda"
    return lambda num_bytes: torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pinned).numpy()


class HostTransfer:
    """Views of the decoded batches, without a copy."""

    def batches(self, decoded: Iterable[Batch]) -> DeviceBatches:
        for batch in decoded:
            yield DeviceBatch(
                torch.from_numpy(batch.images), torch.from_numpy(batch.labels), batch.replaced, batch.samples
            )


class StreamedTransfer:
    """Copies on a stream of its own, into two places by turns: the next batch arrives while this one is computed on.

    The device waits for itself, by events; the host waits for no more than the copy before, so that the decoder does
    not write into memory that is being copied. With two places the host gets two steps ahead at most. An evaluation
    between an epoch's first batches, or whatever else is asked for while one is in use, has places of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self._streams: Any = torch.get_device_module(device)  # torch.cuda; torch.cpu has the same names, for tests
        self._stream = self._streams.Stream()
        self._device = device
        self._idle: list[_Place] = []

    def batches(self, decoded: Iterable[Batch]) -> DeviceBatches:
        places = deque(self._idle.pop() if self._idle else self._new_place() for _ in range(2))
        try:
            yield from self._through(places, decoded)
        finally:
            self._idle += places

    def _new_place(self) -> _Place:
        return _Place(self._device, self._streams.Event())

    def _through(self, places: deque[_Place], decoded: Iterable[Batch]) -> DeviceBatches:
        for batch in decoded:
            place = places[0]
            places.rotate()
            computing = self._streams.current_stream()
            copied = self._streams.Event()
            with self._streams.stream(self._stream):
                # Memory of this stream's own: from the other's, it could still be written by what has yet to run there.
                pixels, labels = place.images.view(batch.images.shape), place.labels.view(batch.labels.shape)
                self._stream.wait_event(place.vacant)
                labels.copy_(torch.from_numpy(batch.labels), non_blocking=True)
                pixels.copy_(torch.from_numpy(batch.images), non_blocking=True)
                copied.record(self._stream)
            computing.wait_event(copied)
            try:
                yield DeviceBatch(pixels, labels, batch.replaced, batch.samples)
            finally:  # all that uses the batch has been submitted, also where a loop is left early
                place.vacant.record(computing)
                copied.synchronize()


class _Place:
    """Device memory for one batch, and the event after which it may be written."""

    def __init__(self, device: torch.device, vacant: Any) -> None:
        self.images = _Growing(device, torch.uint8)
        self.labels = _Growing(device, torch.int64)
        self.vacant = vacant


class _Growing:
    """A tensor's memory, which grows to the largest asked for."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._memory = torch.empty(0, dtype=dtype, device=device)

    def view(self, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if size > self._memory.numel():
            self._memory = self._memory.new_empty(size)
        return self._memory[:size].view(shape)

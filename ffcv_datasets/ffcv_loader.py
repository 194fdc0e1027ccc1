"""FFCV's own loader and decoders behind our loader's face: to compare with, by `data.loader: ffcv`."""

import os
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ffcv.fields.decoders import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.transforms import RandomHorizontalFlip
from numpy.typing import NDArray

from ffcv_datasets.batches import Batch, BatchStream
from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import TrainView, View

_POLL_S = 0.5


class FfcvError(RuntimeError):
    """FFCV's thread has died; its own message stands above, on stderr."""


class FfcvLoader:
    """The same samples in the same order as our loader gives, decoded by FFCV.

    What it cannot do: crops and flips are drawn by numba's generator, so they differ with each run, number of threads
    and resume; the view's seed and epoch have no effect. A damaged sample comes out as black or as another's pixels,
    without a word. A new crop scale or ratio compiles anew, a new size does not. Memory is FFCV's: for each open
    iterator and batch ahead a whole photograph per sample, so an epoch is not begun before it is asked for. FFCV sets
    torch's number of threads to its own.
    """

    num_samples: int
    batches_ahead: int

    def __init__(
        self, path: str | os.PathLike[str], *, copy: Path | None = None, threads: int = 1, batches_ahead: int = 3
    ) -> None:
        """Read the tables, those of `copy` if one is given; FFCV's loader is made with the first view.

        Raises BetonError.
        """
        with Beton(path, copy=copy) as beton:
            self._image, self._label = beton.only("image"), beton.only("int")
            self._fields = list(beton.fields)
            self.num_samples = beton.num_samples
        self.batches_ahead = batches_ahead
        self._path = os.fspath(copy or path)
        self._threads = threads
        self._compiled: tuple[object, ...] | None = None
        self._loader: Any = None
        self._decoder: Any = None

    def batches(
        self, samples: Sequence[NDArray[np.int64]], view: View, *, after: BatchStream | None = None
    ) -> "FfcvBatches":
        """One Batch for each array of sample numbers, all of one length but the last, from the first `next` on."""
        sizes = [len(numbers) for numbers in samples]
        assert len(set(sizes[:-1])) <= 1, sizes
        assert sizes == sorted(sizes, reverse=True), sizes
        return FfcvBatches(self, samples, view)

    def open_epoch(self, samples: Sequence[NDArray[np.int64]], view: View) -> Any:
        """FFCV's iterator over exactly these samples."""
        if self._compiled != _compiled_in(view):
            self._compiled, self._loader = _compiled_in(view), self._make(view)
        self._loader.batch_size = len(samples[0])
        self._decoder.output_size = (view.resolution, view.resolution)
        return EpochIterator(self._loader, np.concatenate(samples).astype(np.uint64))

    def _make(self, view: View) -> Any:
        size = (view.resolution, view.resolution)
        if isinstance(view, TrainView):
            self._decoder = RandomResizedCropRGBImageDecoder(size, scale=view.crop_scale, ratio=view.crop_ratio)
            images = [self._decoder, RandomHorizontalFlip(view.flip_probability)]
        else:
            self._decoder = CenterCropRGBImageDecoder(size, view.crop_ratio)
            images = [self._decoder]
        wanted = {self._image: images, self._label: [IntDecoder()]}
        return Loader(
            self._path,
            batch_size=1,
            num_workers=self._threads,
            order=OrderOption.SEQUENTIAL,
            drop_last=False,
            batches_ahead=self.batches_ahead,
            pipelines={name: wanted.get(name) for name in self._fields},
        )

    def close(self) -> None:
        """Let FFCV's memory map go, once its iterators are gone."""
        self._loader = self._compiled = None

    def __enter__(self) -> "FfcvLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _compiled_in(view: View) -> tuple[object, ...]:
    """What of a view FFCV's compiled code holds; the rest can be changed between its iterators."""
    if isinstance(view, TrainView):
        return TrainView, view.crop_scale, view.crop_ratio, view.flip_probability
    return type(view), view.crop_ratio


class FfcvBatches(Iterator[Batch]):
    """Yields FFCV's batches; unlike FFCV itself it ends when FFCV's thread dies, and leaves no thread behind."""

    def __init__(self, loader: FfcvLoader, samples: Sequence[NDArray[np.int64]], view: View) -> None:
        self._loader = loader
        self._samples = samples
        self._view = view
        self._next = 0
        self._epoch: Any = None
        self._image_first = loader._fields.index(loader._image) < loader._fields.index(loader._label)

    def __len__(self) -> int:
        """The number of batches from the first to the last, yielded ones included."""
        return len(self._samples)

    def __next__(self) -> Batch:
        """The next batch. Raises FfcvError."""
        if self._next >= len(self._samples):
            self.close()
            raise StopIteration
        if self._epoch is None:
            self._epoch = self._loader.open_epoch(self._samples, self._view)
        first, second = self._result()
        images, labels = (first, second) if self._image_first else (second, first)
        numbers = self._samples[self._next]
        self._next += 1
        return Batch(images, labels.reshape(-1).astype(np.int64), numbers)

    def _result(self) -> Any:
        while True:
            try:
                result = self._epoch.output_queue.get(timeout=_POLL_S)
            except queue.Empty:
                if self._epoch.is_alive():
                    continue
                raise FfcvError("FFCV's thread died of the error above; data.loader=resolute names the cause") from None
            assert result is not None
            return result[1]

    def close(self) -> None:
        """End FFCV's thread. Closing again does nothing."""
        self._next = len(self._samples)
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.terminate_event.set()
            epoch.join()  # it looks for the end whenever it has waited half a second to hand a batch over
            epoch.close()

    def __enter__(self) -> "FfcvBatches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

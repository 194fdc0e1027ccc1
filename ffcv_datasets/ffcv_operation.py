"""Our decoder as an Operation of FFCV: for pipelines that are built on FFCV's own loader.

Loader(path, pipelines={"image": [ResoluteDecoder(path, TrainView(seed=0, epoch=0, resolution=160)), ToTensor()]})
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.state import State
from numba import objmode
from numpy.typing import NDArray

from ffcv_datasets.beton import Beton
from ffcv_datasets.crop import View, boxes
from ffcv_datasets.decoder import Decoder


class ResoluteDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]  # ffcv ships no types
    """Decodes, crops, resamples and flips; takes the place of FFCV's decoder and of RandomHorizontalFlip.

    Crop and flip are a function of the view's seed and epoch and of the sample. So `view` is to be set for each
    epoch, before FFCV's loader is iterated over, and an epoch left early is to be closed before: FFCV decodes ahead in
    a thread that nothing else ends. Another resolution needs no recompilation.

    What FFCV does with an error stays as it is: a damaged sample ends its thread, and its loader then waits for ever.
    Our own loader raises it instead.
    """

    view: View

    def __init__(self, path: str | os.PathLike[str], view: View, *, threads: int = 1, field: str | None = None) -> None:
        """Read the file that FFCV's loader reads, with `threads` of our own; `field` if it has several images.

        Raises BetonError, and ValueError for less than one thread.
        """
        super().__init__()
        self.view = view
        self._beton = Beton(path)
        self._image_field = field
        self._decoder = Decoder(threads)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        shape = (self.view.resolution, self.view.resolution, 3)
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("u1"))
        return state, AllocationQuery(shape, np.dtype("u1"))

    def generate_code(self) -> Callable[..., NDArray[np.uint8]]:
        """A function that numba compiles, as FFCV demands of decoders, and that leaves it at once."""
        fill = self._fill

        def decode(
            batch_indices: NDArray[Any], destination: NDArray[np.uint8], metadata: NDArray[Any], storage_state: Any
        ) -> NDArray[np.uint8]:
            images = destination[: len(batch_indices)]
            with objmode():
                fill(batch_indices, images)
            return images

        return decode

    def _fill(self, batch_indices: NDArray[Any], images: NDArray[np.uint8]) -> None:
        """The GIL is held for the boxes alone, not for decoding."""
        samples = batch_indices.astype(np.int64)
        found = self._beton.images(self._image_field)
        where = boxes(self.view, samples, found.heights[samples], found.widths[samples])
        self._decoder.decode(self._beton, samples, where, images, self._image_field)

"""From the decoder's memory to a GPU, and into the model's precision. Skipped, and said so, where there is no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ffcv_datasets.batches import Batch
from ffcv_datasets.crop import CentreView
from ffcv_datasets.loader import Loader
from ffcv_datasets.picture import Encoding
from ffcv_datasets.synthetic import DrawnSamples
from ffcv_datasets.write import write_betons
from launcher.device_batches import StreamedTransfer, host_memory, transfer_to
from launcher.model_input import ModelInput, Pixels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")

SAMPLES = [np.arange(i, i + 32) for i in range(60)]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "train.beton"
    write_betons([(path, DrawnSamples(seed=0, size=64, num_samples=100))], Encoding(), num_workers=1)
    return path


def keep_busy() -> None:
    """Give the GPU's current stream about a tenth of a second to do: far longer than a copy takes."""
    torch.cuda._sleep(200_000_000)  # type: ignore[no-untyped-call]


@pytest.fixture
def gpu() -> torch.device:
    return torch.device("cuda", 0)


def host_batches(path: Path, view: CentreView) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with Loader(path) as loader, loader.batches(SAMPLES, view) as decoded:
        return [(torch.from_numpy(b.images.copy()), torch.from_numpy(b.labels.copy())) for b in decoded]


def test_batches_are_decoded_into_pinned_memory(drawn: Path, gpu: torch.device) -> None:
    with Loader(drawn, allocate=host_memory(gpu)) as loader, loader.batches(SAMPLES[:1], CentreView(32)) as decoded:
        assert torch.from_numpy(next(decoded).images).is_pinned()


def test_batches_arrive_whole_though_the_gpu_lags_behind(drawn: Path, gpu: torch.device) -> None:
    transfer = transfer_to(gpu)
    assert isinstance(transfer, StreamedTransfer)
    for view in (CentreView(32), CentreView(64), CentreView(48)):  # the memory grows in between
        seen = []
        with (
            Loader(drawn, allocate=host_memory(gpu)) as loader,
            loader.batches(SAMPLES, view) as decoded,
            closing(transfer.batches(decoded)) as batches,
        ):
            for number, batch in enumerate(batches):
                if number % 20 == 0:
                    keep_busy()
                seen.append((batch.pixels.clone(), batch.labels.clone()))
        for (pixels, labels), (right_pixels, right_labels) in zip(seen, host_batches(drawn, view), strict=True):
            assert torch.equal(pixels.cpu(), right_pixels)
            assert torch.equal(labels.cpu(), right_labels)


def test_a_batch_does_not_arrive_in_memory_that_a_kernel_has_yet_to_write(gpu: torch.device) -> None:
    images = np.full((32, 64, 64, 3), 77, np.uint8)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    freed = torch.empty(images.shape, dtype=torch.uint8, device=gpu)
    keep_busy()
    freed.fill_(1)
    del freed  # the allocator gives it to whoever asks next on this stream, before the kernels have run

    def decoded() -> Iterator[Batch]:
        yield Batch(images, np.zeros(32, np.int64), np.arange(32))

    with closing(StreamedTransfer(gpu).batches(decoded())) as batches:
        assert (next(batches).pixels.clone() == 77).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_normalises_as_a_cpu_does(gpu: torch.device, precision: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 2, 3).contiguous()
    statistics = Pixels((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    found = ModelInput(statistics, gpu, precision).normalise(pixels.to(gpu))
    right = ModelInput(statistics, torch.device("cpu"), precision).normalise(pixels)
    assert found.dtype is precision
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.cpu().float(), right.float(), rtol=torch.finfo(precision).eps, atol=1e-6)


def test_a_convolution_takes_the_input_in_bfloat16_and_channels_last(gpu: torch.device) -> None:
    model_input = ModelInput(Pixels((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)), gpu, torch.bfloat16)
    layer = torch.nn.Conv2d(3, 8, 3).to(gpu).to(memory_format=torch.channels_last)
    images = model_input.normalise(torch.zeros(4, 32, 32, 3, dtype=torch.uint8, device=gpu))
    with model_input.autocast():
        made = layer(images)
    made.float().sum().backward()
    assert made.dtype is torch.bfloat16
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.grad is not None

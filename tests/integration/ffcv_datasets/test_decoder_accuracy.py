"""A network learns as much from our pixels as from FFCV's, and does not notice which of them it is shown.

benchmarks/decoder_accuracy.py asks the same of CIFAR-10.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.integration.ffcv_datasets.pictures import jpeg, write_pictures

NUM_CLASSES, SIDE = 6, 56

# In a process of its own, for FFCV's import.
_SCRIPT = """
import itertools, json, sys, warnings
warnings.simplefilter("ignore")  # FFCV's
import numpy as np
import torch
from torch import nn
from ffcv_datasets.crop import CentreView, TrainView
from ffcv_datasets.ffcv_loader import FfcvLoader
from ffcv_datasets.loader import Loader

BATCH, EPOCHS = 32, 6
LOADERS = {"resolute": Loader, "ffcv": FfcvLoader}

def inputs(batch):
    return torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() / 64 - 2

def trained(name, path):
    torch.manual_seed(0)
    layers = [(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in ((3, 16), (16, 32), (32, 64))]
    model = nn.Sequential(*itertools.chain(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with LOADERS[name](path) as loader:
        for epoch in range(EPOCHS):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - epoch / EPOCHS)
            order = np.random.default_rng(epoch).permutation(loader.num_samples)
            view = TrainView(0, epoch, 24 if epoch < 3 else 40, crop_scale=(0.35, 1.0))
            with loader.batches(np.array_split(order, len(order) // BATCH), view) as batches:
                for batch in batches:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(inputs(batch)), torch.from_numpy(batch.labels % 6)).backward()
                    optimizer.step()
    return model.eval()

def accuracy(model, name, path):
    with LOADERS[name](path) as loader, torch.no_grad():
        samples = np.array_split(np.arange(loader.num_samples), loader.num_samples // BATCH)
        with loader.batches(samples, CentreView(40, crop_ratio=1.0)) as batches:
            right = sum(int((model(inputs(b)).argmax(1).numpy() == b.labels % 6).sum()) for b in batches)
    return right / loader.num_samples

torch.set_num_threads(1)
train, val = sys.argv[1:]
models = {name: trained(name, train) for name in LOADERS}
print(json.dumps([accuracy(models[learned], shown, val) for learned, shown in itertools.product(LOADERS, LOADERS)]))
"""


def striped(label: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Fine stripes, upright, level or aslant, of a reddish or a bluish grey, under noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    across = (x, y, (x + y) / np.sqrt(2))[label % 3]
    wave = np.sin(across * 2 * np.pi / random.uniform(5, 9) + random.uniform(0, 2 * np.pi))
    tint = np.array([6, 0, -6]) * (1 if label < 3 else -1)
    grey = random.uniform(90, 160) + 30 * wave[..., None]
    levels: NDArray[np.float64] = grey + tint + random.normal(0, 20, (SIDE, SIDE, 3))
    return levels.clip(0, 255).astype(np.uint8)


def write(path: Path, num_samples: int, seed: int) -> Path:
    """Sample i is of class i % NUM_CLASSES."""
    random = np.random.default_rng(seed)
    return write_pictures(path, [(jpeg(striped(i % NUM_CLASSES, random)), SIDE, SIDE) for i in range(num_samples)])


def test_a_network_learns_the_same_from_our_pixels_and_from_ffcvs(tmp_path: Path) -> None:
    files = [write(tmp_path / "train.beton", 768, 0), write(tmp_path / "val.beton", 384, 1)]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, files)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    accuracies = json.loads(done.stdout.splitlines()[-1])
    assert min(accuracies) > 0.9, accuracies
    assert max(accuracies) - min(accuracies) < 0.04, accuracies

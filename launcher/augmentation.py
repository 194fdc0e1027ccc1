"""What is done to training images besides crop and flip: torchvision's transforms, on the device, made repeatable.

They draw from torch's global generator. It is seeded here for each use and put back as it was, so that an image's
augmentation is a function of (seed, epoch, sample): the same whatever threads, workers, batches and resumes. One call
for each image would be thousands of small operations a batch. So every epoch has a number of *variants*, each a seed of
the transform; a sample falls to one of them, and those of a batch that share one are transformed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from ffcv_datasets.philox import sample_words
from launcher.config import Augmentation, RandAugment
from launcher.plan import EpochSpec

_STREAM = 1 << 19  # away from the streams of crop, flip, order and substitutes, which use the same seed
_VARIANT_STREAM = _STREAM + 1
_MIX_STREAM = _STREAM + 2
NUM_VARIANTS = 64
"""Different augmentations in an epoch."""
_MAGNITUDE_STEPS = 1000
"""How finely RandAugment's magnitude is told."""

Indices = NDArray[np.int64]


class Augmenter:
    """A job's augmentation of one rank's batches, at each epoch's strengths."""

    def __init__(self, config: Augmentation, *, seed: int, num_classes: int, mean_colour: tuple[float, float, float]):
        self._config = config
        self._seed = seed
        self._num_classes = num_classes
        self._fill = [round(channel) for channel in mean_colour]

    def images(self, pixels: Tensor, samples: Indices, spec: EpochSpec) -> Tensor:
        """uint8 (N, H, W, 3) -> the same, augmented: `samples` (N,) are their numbers."""
        transform = self._transform(spec)
        if transform is None:
            return pixels
        words = sample_words(self._seed, spec.epoch, samples, _STREAM)[:, 0]
        variants = words.astype(np.int64) * NUM_VARIANTS >> 32
        images = pixels.permute(0, 3, 1, 2)
        augmented = torch.empty_like(images)
        for variant in np.unique(variants):
            members = torch.from_numpy(np.flatnonzero(variants == variant)).to(pixels.device)
            with self._drawing(spec.epoch, int(variant), _VARIANT_STREAM):
                augmented[members] = transform(images[members])
        return augmented.permute(0, 2, 3, 1)

    def _transform(self, spec: EpochSpec) -> Callable[[Tensor], Tensor] | None:
        steps: list[nn.Module] = []
        policy = self._config.policy
        if spec.magnitude is not None:
            assert isinstance(policy, RandAugment)
            step = round(min(1.0, spec.magnitude / policy.strongest) * _MAGNITUDE_STEPS)
            steps.append(v2.RandAugment(policy.num_ops, step, _MAGNITUDE_STEPS + 1, fill=self._fill))
        elif spec.policy == "trivial_augment":
            steps.append(v2.TrivialAugmentWide(fill=self._fill))
        if spec.erasing_probability:
            steps.append(v2.RandomErasing(spec.erasing_probability, value=self._fill))
        return nn.Sequential(*steps) if steps else None

    def mix(self, images: Tensor, labels: Tensor, samples: Indices, spec: EpochSpec) -> tuple[Tensor, Tensor]:
        """Blend normalised images (N, 3, H, W) with their neighbours in the batch, and labels (N,) likewise.

        The labels become probabilities (N, num_classes); both come back as they are where the epoch mixes nothing.
        """
        mixing: list[nn.Module] = []
        if spec.mixup_alpha:
            mixing.append(v2.MixUp(alpha=spec.mixup_alpha, num_classes=self._num_classes))
        if spec.cutmix_alpha:
            mixing.append(v2.CutMix(alpha=spec.cutmix_alpha, num_classes=self._num_classes))
        if not mixing:
            return images, labels
        with self._drawing(spec.epoch, int(samples[0]), _MIX_STREAM):
            mixed: tuple[Tensor, Tensor] = v2.RandomChoice(mixing)(images, labels)
        return mixed

    @contextmanager
    def _drawing(self, epoch: int, number: int, stream: int) -> Iterator[None]:
        """Let the transforms draw numbers that are a function of the arguments.

        They draw from the CPU's generator. torch.manual_seed would seed a GPU's, too, and so repeat its dropout.
        """
        low, high = (int(word) for word in sample_words(self._seed, epoch, np.array([number]), stream)[0, :2])
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(high << 32 | low)
        try:
            yield
        finally:
            torch.set_rng_state(before)

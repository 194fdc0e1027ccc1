"""Augmentation: torchvision's own, a function of seed, epoch and sample, as strong as the plan says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth
from torchvision.transforms import v2

from ffcv_datasets.philox import sample_words
from launcher import augmentation
from launcher.augmentation import Augmenter
from launcher.config import Augmentation, Model
from launcher.models import ModelError, Rates, check_rates
from launcher.plan import EpochSpec
from tests.unit.sample_jobs import make_plan

MEAN_COLOUR = (120.4, 110.0, 99.6)
RAND: dict[str, Any] = {"policy": {"kind": "rand_augment", "magnitude": 20}}
SAMPLES = np.arange(1000, 1200)


def pictures(count: int = len(SAMPLES), px: int = 16) -> Tensor:
    """Smooth pictures, all different."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    images = nn.functional.interpolate(coarse, size=(px, px), mode="bilinear")
    return (images * 255).byte().permute(0, 2, 3, 1).contiguous()


def augmenter_and_rows(seed: int = 5, **wanted: Any) -> tuple[Augmenter, tuple[EpochSpec, ...]]:
    plan = make_plan({"epochs": 2}, {"epochs": 1, "resolution": 24}, augmentation=wanted)
    config = Augmentation.model_validate(wanted)
    return Augmenter(config, seed=seed, num_classes=4, mean_colour=MEAN_COLOUR), plan.rows


def augmented(samples: NDArray[np.int64] = SAMPLES, *, epoch: int = 0, seed: int = 5, **wanted: Any) -> Tensor:
    augmenter, rows = augmenter_and_rows(seed, **wanted)
    return augmenter.images(pictures()[torch.from_numpy(samples - SAMPLES[0])], samples, rows[epoch])


def test_an_image_comes_out_the_same_in_whatever_batch_and_order_it_is() -> None:
    whole = augmented(**RAND, random_erasing=0.5)
    shuffled = np.random.default_rng(0).permutation(SAMPLES)
    for part in np.array_split(shuffled, 7):
        assert torch.equal(augmented(part, **RAND, random_erasing=0.5), whole[torch.from_numpy(part - SAMPLES[0])])


def test_another_epoch_or_seed_augments_otherwise() -> None:
    assert torch.equal(augmented(**RAND), augmented(**RAND))
    assert not torch.equal(augmented(**RAND), augmented(epoch=1, **RAND))
    assert not torch.equal(augmented(**RAND), augmented(seed=6, **RAND))


@pytest.mark.parametrize("policy", [RAND["policy"], {"kind": "trivial_augment"}], ids=["rand", "trivial"])
def test_the_pixels_are_torchvisions_and_stay_as_they_lie_in_memory(policy: dict[str, Any]) -> None:
    found = augmented(policy=policy)
    assert (found.shape, found.dtype, found.is_contiguous()) == (pictures().shape, torch.uint8, True)
    fill = [120, 110, 100]
    theirs = (
        v2.RandAugment(magnitude=667, num_magnitude_bins=1001, fill=fill)
        if policy == RAND["policy"]
        else v2.TrivialAugmentWide(fill=fill)
    )
    images = pictures().permute(0, 3, 1, 2)
    for variant in _variants_of_epoch_0():
        torch.manual_seed(variant)
        matching = (theirs(images).permute(0, 2, 3, 1) == found).flatten(1).all(1)
        assert matching.sum() >= 1


def _variants_of_epoch_0() -> list[int]:
    """Seeds of the variants that these samples fall to."""

    words = sample_words(5, 0, SAMPLES, augmentation._STREAM)[:, 0].astype(np.int64)
    variants = np.unique(words * augmentation.NUM_VARIANTS >> 32)
    seeds = sample_words(5, 0, variants, augmentation._VARIANT_STREAM).astype(np.uint64)
    return [int(high) << 32 | int(low) for low, high in seeds[:, :2]]


def test_samples_fall_to_all_variants_about_equally() -> None:

    words = sample_words(5, 0, np.arange(64_000), augmentation._STREAM)[:, 0].astype(np.int64)
    counts = np.bincount(words * augmentation.NUM_VARIANTS >> 32, minlength=augmentation.NUM_VARIANTS)
    assert len(counts) == augmentation.NUM_VARIANTS
    assert abs(counts - 1000).max() < 5 * 1000**0.5


def test_global_random_numbers_are_left_as_they_are() -> None:
    augmenter, rows = augmenter_and_rows(**RAND, mixup=0.2)
    before = torch.get_rng_state()
    augmenter.images(pictures(), SAMPLES, rows[0])
    augmenter.mix(torch.rand(4, 3, 8, 8), torch.arange(4), SAMPLES[:4], rows[0])
    torch.set_rng_state(before)
    torch.rand(3)
    after_one_draw = torch.get_rng_state()
    torch.set_rng_state(before)
    augmenter.images(pictures(), SAMPLES, rows[0])
    torch.rand(3)
    assert torch.equal(torch.get_rng_state(), after_one_draw)


def test_a_larger_magnitude_changes_more_and_the_strongest_is_the_limit() -> None:
    def change(magnitude: float, strongest: float = 30) -> float:
        policy = {"kind": "rand_augment", "magnitude": magnitude, "strongest": strongest}
        return float((augmented(policy=policy).float() - pictures().float()).abs().mean())

    assert change(3) < change(15) < change(30)
    assert change(5, strongest=10) == change(15)
    assert change(15, strongest=10) == change(10, strongest=10)


def test_a_magnitude_grows_from_phase_to_phase() -> None:
    growing = {"kind": "rand_augment", "magnitude": {"start": 0, "end": 30}}
    first, last = (augmented(epoch=epoch, policy=growing) for epoch in (0, 2))
    assert torch.equal(first, augmented(policy={**growing, "magnitude": 0}))
    assert torch.equal(last, augmented(epoch=2, policy={**growing, "magnitude": 30}))


def test_erasing_paints_the_mean_colour_over_its_share_of_the_images() -> None:
    found = augmented(random_erasing=0.25)
    painted = (found == torch.tensor([120, 110, 100], dtype=torch.uint8)).all(3)
    touched = (found != pictures()).flatten(1).any(1)
    assert 0.1 < touched.float().mean() < 0.4
    assert ((found == pictures()).all(3) | painted).all()
    assert augmented(random_erasing=1.0).ne(pictures()).flatten(1).any(1).all()


def test_nothing_wanted_leaves_pixels_and_labels_alone() -> None:
    augmenter, rows = augmenter_and_rows()
    pixels, images, labels = pictures(), torch.rand(4, 3, 8, 8), torch.arange(4)
    assert augmenter.images(pixels, SAMPLES, rows[0]) is pixels
    mixed = augmenter.mix(images, labels, SAMPLES[:4], rows[0])
    assert mixed[0] is images
    assert mixed[1] is labels


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_blends_images_and_labels_alike(kind: str) -> None:
    wanted: dict[str, Any] = {kind: 1.0}
    augmenter, rows = augmenter_and_rows(**wanted)
    labels = torch.arange(4)
    images = labels.float().view(4, 1, 1, 1).expand(4, 3, 32, 32).clone()
    mixed, probabilities = augmenter.mix(images, labels, SAMPLES[:4], rows[0])
    assert torch.allclose(probabilities.sum(1), torch.ones(4))
    expected = (probabilities * labels).sum(1)
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-4)
    again, _ = augmenter.mix(images, labels, SAMPLES[:4], rows[0])
    other, _ = augmenter.mix(images, labels, SAMPLES[4:8], rows[0])
    assert torch.equal(again, mixed)
    assert not torch.equal(other, mixed)


def test_mixup_and_cutmix_take_turns() -> None:
    augmenter, rows = augmenter_and_rows(mixup=1.0, cutmix=1.0)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32).clone()
    blended = 0
    for first in SAMPLES[:40]:
        mixed, _ = augmenter.mix(images, torch.arange(4), np.array([first]), rows[0])
        blended += int((mixed != mixed.round()).any())
    assert 8 < blended < 32


def blocks() -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.4), nn.Dropout(0.0), StochasticDepth(0.2, "row"), DropPath(0.3))


def test_rates_keep_their_proportion_to_the_highest_and_come_back() -> None:
    model = nn.Sequential(*list(blocks())[:3], StochasticDepth(0.1, "row"), StochasticDepth(0.2, "row"))
    rates = Rates(model)
    rates.set(dropout=0.2, stochastic_depth=0.5)
    assert [module.p for module in model] == pytest.approx([0.05, 0.2, 0, 0.25, 0.5])
    rates.set(dropout=None, stochastic_depth=None)
    assert [module.p for module in model] == pytest.approx([0.1, 0.4, 0, 0.1, 0.2])


def test_timms_stochastic_depth_follows_too() -> None:
    model = nn.Sequential(DropPath(0.1), DropPath(0.2))
    Rates(model).set(dropout=0.9, stochastic_depth=0.1)
    assert [module.drop_prob for module in model] == pytest.approx([0.05, 0.1])


def test_a_rate_that_the_model_has_not_got_is_refused() -> None:
    small = Model(name="small_resnet")
    wanted = Augmentation.model_validate({"dropout": {"start": 0.1, "end": 0.3}})
    with pytest.raises(ModelError, match=r"augmentation\.dropout: small_resnet is built without any; delete it, or"):
        check_rates(small, wanted, num_classes=3)
    check_rates(small.model_copy(update={"options": {"dropout": 0.1}}), wanted, num_classes=3)
    check_rates(Model(name="efficientnet_b0"), Augmentation(stochastic_depth=0.2, dropout=0.1), num_classes=3)
    with pytest.raises(ModelError, match=r"augmentation\.stochastic_depth"):
        check_rates(Model(name="resnet18"), Augmentation(stochastic_depth=0.2), num_classes=3)

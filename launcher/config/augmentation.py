"""What is done to training images besides crop and flip, and how strongly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from launcher.config.values import Count, NonNegative, Positive, Section, broken_rule


class Growing(Section):
    """A strength that grows from the first phase to the last, by equal steps, as in EfficientNetV2."""

    start: NonNegative
    end: NonNegative


def _strength_tag(value: Any) -> str:
    return "growing" if isinstance(value, (dict, Growing)) else "number"


Strength = Annotated[
    Annotated[NonNegative, Tag("number")] | Annotated[Growing, Tag("growing")], Discriminator(_strength_tag)
]


def _at_most_one(strength: float | Growing) -> float | Growing:
    if max([strength.start, strength.end] if isinstance(strength, Growing) else [strength]) > 1:
        raise broken_rule("is more than 1, and a probability", fix="use 1 or less")
    return strength


Probability = Annotated[Strength, AfterValidator(_at_most_one)]


class RandAugment(Section):
    """`num_ops` random operations per image, all of one magnitude (Cubuk et al. 2020); torchvision's."""

    kind: Literal["rand_augment"]
    magnitude: Strength
    strongest: Positive = 30.0
    """The magnitude at which operations are at their strongest; above it none grows. 30 in torchvision's numbers, 10 in
    EfficientNetV2's."""
    num_ops: Count = 2


class TrivialAugment(Section):
    """One random operation per image, of a random magnitude (Müller and Hutter 2021); torchvision's `ta_wide`."""

    kind: Literal["trivial_augment"]


class Augmentation(Section):
    """What is done to training images besides crop and flip. A strength is a number, or `{start, end}` over the phases.

    The same for the same seed, epoch and sample, whatever the workers, threads and resumes; mixup and cutmix pair
    samples within a worker's batch. Phases that train on centre crops go without.
    """

    policy: Annotated[RandAugment | TrivialAugment, Field(discriminator="kind")] | None = None
    random_erasing: Probability = 0.0
    """Share of images in which a random rectangle is painted over with the mean colour (Zhong et al. 2020)."""
    mixup: Strength = 0.0
    """Alpha of the blending's beta distribution (Zhang et al. 2018); 0: none. Beside cutmix, batches take turns at
    random."""
    cutmix: Strength = 0.0
    """Alpha, likewise, of the pasted rectangle's share (Yun et al. 2019)."""
    dropout: Probability | None = None
    """The model's highest dropout rate; others keep their proportion to it. As the model was built when absent."""
    stochastic_depth: Probability | None = None
    """The model's highest rate of skipping a block, in its last one; others keep their proportion to it."""

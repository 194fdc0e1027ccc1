"""The job file's types: what a user may say, with the unit in each name and the rule beside each field.

Reading a file, overrides and error texts live in `job_file.py`; this module holds only the types, imports neither torch
nor ray, and touches no disk. Every model is strict: unknown keys are errors, and `None` means "not given".
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

MIN_RESOLUTION_PX = 8
MAX_RESOLUTION_PX = 4096


def broken_rule(rule: str, *, fix: str, alternatives: tuple[str, ...] = ()) -> PydanticCustomError:
    """The error of a rule of ours: what was broken and what to write instead; `alternatives` are keys that would do.

    Rules are checked by field, those between two fields by the later one: a rule of the whole section would stay silent
    while any of its fields is wrong, and a user would learn of it only after mending that.
    """
    return PydanticCustomError("rule", "{rule}", {"rule": rule, "fix": fix, "alternatives": alternatives})


def _no_bool(value: Any) -> Any:
    """YAML's `yes` must not pass as the number 1."""
    if isinstance(value, bool):
        raise broken_rule("must be a number, not true or false", fix="write a number")
    return value


# Lax, so that a number in quotes passes, too.
Number = Annotated[float, Field(strict=False, allow_inf_nan=False), BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=MIN_RESOLUTION_PX, le=MAX_RESOLUTION_PX)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
# Any to type checkers, as it goes to a constructor that knows better.
Json = Annotated[Any, GetPydanticSchema(lambda _, handler: handler.generate_schema(JsonValue))]
Point = Annotated[tuple[Number, NonNegative], Field(strict=False)]
Rgb = Annotated[tuple[NonNegative, NonNegative, NonNegative], Field(strict=False)]


def _absolute(directory: str) -> str:
    if not directory.startswith(("/", "$")):
        raise broken_rule("must be an absolute path", fix=f"write /{directory}, or begin with a variable")
    return directory


NodeDirectory = Annotated[str, AfterValidator(_absolute)]
"""A directory on each node, whose `$VARIABLES` are those of the node's processes."""


class Section(BaseModel):
    """A part of a job: strict keys and types, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )


class Data(Section):
    train: str | None = None
    """Path of the training `.beton`; needed to run, not to plan if `num_samples` is given."""
    val: str | None = None
    """Path of the validation `.beton`; without it the run does not evaluate."""
    stage: NodeDirectory | None = None
    """A directory on each node's own disk, such as `$SLURM_TMPDIR`: both files are copied there before training, once a
    node, and read there. Variables are those of the node when a worker starts."""
    stage_timeout_s: Positive = 1800.0
    """After so long without a whole copy a worker reads the files from where they lie."""
    num_samples: Count | None = None
    """Training samples, for planning where the data is not; a run checks it against the file."""
    num_classes: Count | None = None
    """Number of classes; read from the data set's card when absent."""
    channel_mean: Rgb | None = None
    """Mean per channel, 0..255; the card's when absent."""
    channel_std: Rgb | None = None
    """Standard deviation per channel, 0..255; the card's when absent."""
    decode_threads_per_worker: Count = 1
    """Threads that decode images, per worker."""
    batches_ahead: Count = 3
    """Batches decoded ahead of training, per worker."""
    shuffle_window_samples: Annotated[int, Field(ge=2)] | None = None
    """Shuffle within stretches of so many neighbours, for a file larger than memory; the whole file when absent."""
    skip_corrupt: bool = False
    """Let another sample, drawn by seed, epoch and sample, stand in for one that is damaged; else that ends the run."""
    loader: Literal["resolute", "ffcv"] = "resolute"
    """ffcv: FFCV's own loader and decoder, to compare with; its crops cannot be repeated, and it sees no damage."""

    @field_validator("loader")
    @classmethod
    def _sees_damage(cls, loader: str, info: ValidationInfo) -> str:
        if loader == "ffcv" and info.data.get("skip_corrupt"):
            raise broken_rule("FFCV's loader does not notice damage", fix="use resolute, or skip_corrupt: false")
        return loader


class Model(Section):
    name: str
    """`small_resnet`; a name of torchvision.models.list_models(), such as resnet50; or timm/NAME, where timm is
    installed. A vision transformer's position embedding is resampled to each size."""
    options: dict[str, Json] = Field(default_factory=dict)
    """Keyword arguments for the model's constructor."""
    blurpool: bool = False
    """Blur before every strided convolution of at least 16 channels (Zhang 2019), as ffcv-imagenet does."""
    zero_init_residual: bool = False
    """Start each residual block as the identity, with a gain of 0 in its last norm (Goyal et al. 2017, section 5.1)."""
    pretrained: str | None = None
    """Start from published weights: a name of the model's in torchvision, such as IMAGENET1K_V2, a tag of timm's, or
    DEFAULT. A classifier for other classes is replaced."""
    weights: str | None = None
    """Start from this file: safetensors, such as a run's model.safetensors, or a PyTorch state dict."""

    @field_validator("weights")
    @classmethod
    def _one_start(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is not None and info.data.get("pretrained") is not None:
            raise broken_rule("model.pretrained is given, too", fix="delete one of them")
        return weights


class Loss(Section):
    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """bce: a binary cross entropy per class, summed; the classifier starts at the classes' prior probability, as
    Composer's recipes do."""
    label_smoothing: BelowOne = 0.0


class _Optimizer(Section):
    """What every optimizer has."""

    weight_decay: NonNegative = 0.0
    norm_weight_decay: NonNegative | None = None
    """Weight decay of norm layers and biases; `weight_decay` when absent, 0 in most ImageNet recipes."""
    layer_decay: Fraction = 1.0
    """Factor on the LR from each layer to the one before it: the classifier learns fastest, for fine-tuning."""
    clip_norm: Positive | None = None
    """Scale the gradient down to at most this norm, over all weights."""


class Sgd(_Optimizer):
    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise broken_rule("needs a momentum above 0", fix="set momentum, or nesterov: false")
        return nesterov


Betas = Annotated[tuple[BelowOne, BelowOne], Field(strict=False)]


class AdamW(_Optimizer):
    name: Literal["adamw"]
    betas: Betas = (0.9, 0.999)
    epsilon: Positive = 1e-8


class RmsProp(_Optimizer):
    """torch's, which adds epsilon after the root: torchvision's recipes take 0.0316 for EfficientNet's 0.001."""

    name: Literal["rmsprop"]
    smoothing: BelowOne = 0.99
    """What stays of the squared gradients' average at each step; 0.9 for EfficientNet."""
    momentum: BelowOne = 0.0
    epsilon: Positive = 1e-8


class Lamb(_Optimizer):
    """timm's (You et al. 2020, arXiv:1904.00962), without its own clipping: see clip_norm."""

    name: Literal["lamb"]
    betas: Betas = (0.9, 0.999)
    epsilon: Positive = 1e-6


class Lars(_Optimizer):
    """timm's (You et al. 2017, arXiv:1708.03888)."""

    name: Literal["lars"]
    momentum: BelowOne = 0.9
    nesterov: bool = False
    trust_coefficient: Positive = 0.001


Optimizer = Annotated[Sgd | AdamW | RmsProp | Lamb | Lars, Field(discriminator="name")]


class Ema(Section):
    """An exponential moving average of weights and buffers, evaluated and exported in place of the last ones.

    torch.optim.swa_utils computes it.
    """

    decay: Annotated[Number, Field(gt=0, lt=1)]
    """What stays of the average at each update; 0.9999 averages about the last 10,000 updates."""
    every_steps: Count = 1
    """Update after every so many steps, counted from each epoch's start."""


class Constant(Section):
    kind: Literal["constant"] = "constant"


class PiecewiseLinear(Section):
    """Straight lines between points; ffcv-imagenet's cyclic schedule is [[0, 1e-4], [2, 1], [16, 0]]."""

    kind: Literal["piecewise_linear"]
    points: Annotated[tuple[Point, ...], Field(strict=False, min_length=2)]
    """[epoch, factor] pairs in order; held constant before the first and after the last. Two points at one epoch are a
    jump from the first to the second."""

    @field_validator("points")
    @classmethod
    def _epochs_in_order(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        epochs = [epoch for epoch, _ in points]
        for earlier, later in pairwise(epochs):
            if later < earlier:
                rule = f"epochs must not fall, but {later:g} follows {earlier:g}"
                raise broken_rule(rule, fix="put the points in order")
        for epoch in epochs:
            if epochs.count(epoch) > 2:
                raise broken_rule(f"epoch {epoch:g} stands {epochs.count(epoch)} times", fix="keep two points at most")
        return points


class Step(Section):
    kind: Literal["step"]
    milestones_epochs: Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=1)]
    """Epochs at which the LR is multiplied by `factor`."""
    factor: Fraction = 0.1


class _Decay(Section):
    """From 1 at `begin_epoch`, held until then, down to `final_factor` at the end."""

    final_factor: Annotated[Number, Field(ge=0, le=1)] = 0.0
    begin_epoch: NonNegative = 0.0
    """0, or a warm-up's length, as torchvision's recipes have it."""


class Cosine(_Decay):
    """Half a cosine (Loshchilov and Hutter 2017), from 1 down to `final_factor`."""

    kind: Literal["cosine"]


class Polynomial(_Decay):
    """A power of what is left, from 1 down to `final_factor`; 1 is a straight line, 2 a parabola."""

    kind: Literal["polynomial"]
    power: Positive = 1.0


class Exponential(Section):
    """Times `factor` for every `every_epochs`; EfficientNet's is 0.97 for every 2.4, by stairs, held for 5."""

    kind: Literal["exponential"]
    factor: Fraction
    every_epochs: Positive = 1.0
    stairs: bool = False
    """Fall at the end of each such stretch, instead of all along."""
    hold_epochs: NonNegative = 0.0
    """Stay at 1 for so long, then be where one would be without the hold."""


Shape = Annotated[Constant | PiecewiseLinear | Step | Cosine | Polynomial | Exponential, Field(discriminator="kind")]


class LearningRate(Section):
    base: Positive
    """The learning rate at a global batch of `base_batch`."""
    base_batch: Count = 256
    """The global batch that `base` was chosen for, and from which `scaling` goes."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the LR follows the global batch: as the batch itself (Goyal et al. 2017), as its root, or not."""
    shape: Shape = Constant()
    """The LR's course over the run, as a factor."""
    restart: Literal["never", "per_phase"] = "never"
    """per_phase: the shape runs through every phase anew, and its epochs count from the phase's first."""
    at_size_increase: Fraction = 1.0
    """Factor on the LR at every increase of the training size, within ramps, too."""


class Ramp(Section):
    """A size that grows over a phase's epochs: `start` at its first, `end` at the first epoch after it.

    This is ffcv-imagenet's rule.
    """

    multiple_of: Count
    """Sizes are rounded to this step, half to even."""
    start: Pixels
    end: Pixels
    between_epochs: Annotated[tuple[NonNegative, NonNegative], Field(strict=False)] | None = None
    """Grow between these epochs of the phase alone, fractions allowed: `start` before them, `end` after."""

    @field_validator("start", "end")
    @classmethod
    def _on_the_step(cls, size: int, info: ValidationInfo) -> int:
        step = info.data.get("multiple_of", 1)
        if size % step:
            raise broken_rule(f"is not a multiple of {step}", fix=f"use {max(1, round(size / step)) * step}")
        return size

    @field_validator("between_epochs")
    @classmethod
    def _in_order(cls, between: tuple[float, float] | None) -> tuple[float, float] | None:
        if between is not None and between[0] >= between[1]:
            raise broken_rule("does not run forwards", fix=f"use [{between[1]:g}, {between[0]:g}]")
        return between


class RecalibrateNorm(Section):
    """Estimate running mean and variance anew from training samples at the new size (Wu and Johnson 2021)."""

    kind: Literal["recalibrate"]
    num_batches: Count | None = None
    """Global batches to estimate from, or as many as the epoch has; unset, as many as hold 10,000 samples.

    Statistics of 1,000 to 10,000 samples are good ones, say the authors.
    """


class FreezeNorm(Section):
    """Normalise by the statistics of the size before for a while, as in evaluation; their scale and shift train on.

    For small learning rates, as in fine-tuning: nothing bounds activations meanwhile. At the rates of training from
    scratch two of three seeds of `cifar10-cpu` diverged (docs/race.md).
    """

    kind: Literal["freeze"]
    epochs: Count = 1


class KeepNorm(Section):
    """Let the statistics follow by their own momentum."""

    kind: Literal["none"] = "none"


Norm = Annotated[RecalibrateNorm | FreezeNorm | KeepNorm, Field(discriminator="kind")]


def _resolution_tag(value: Any) -> str:
    return "ramp" if isinstance(value, (dict, Ramp)) else "size"


Resolution = Annotated[Annotated[Pixels, Tag("size")] | Annotated[Ramp, Tag("ramp")], Discriminator(_resolution_tag)]


def _batch_tag(value: Any) -> str:
    return "auto" if isinstance(value, str) else "number"


BatchPerWorker = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["auto"], Tag("auto")], Discriminator(_batch_tag)
]


def _trainable_tag(value: Any) -> str:
    return "blocks" if isinstance(value, int) else "parts"


TrainableParts = Literal["all", "classifier", "classifier_and_last_norm"]
Trainable = Annotated[
    Annotated[TrainableParts, Tag("parts")] | Annotated[Count, Tag("blocks")], Discriminator(_trainable_tag)
]


def in_order(pair: tuple[float, float]) -> tuple[float, float]:
    """The least before the greatest, or an error."""
    low, high = pair
    if low > high:
        raise broken_rule("runs downwards", fix=f"use [{high:g}, {low:g}]")
    return pair


CropRange = Annotated[tuple[Fraction, Fraction], Field(strict=False), AfterValidator(in_order)]


class CropAtSize(Section):
    """Crops that keep objects at one size in pixels: at half of `at` px they show a quarter of the area.

    Random crops enlarge objects (Touvron et al. 2019, section 3); this keeps by how much, whatever the phase's size.
    """

    scale: CropRange
    """Least and greatest share of the image's area at `at` px; at other sizes in proportion to the area, at most 1."""
    at: Pixels


def _crop_tag(value: Any) -> str:
    return "rule" if isinstance(value, (dict, CropAtSize)) else "range"


def _warmup_tag(value: Any) -> str:
    return "base" if value == "base" else "factor"


WarmupStart = Annotated[
    Annotated[Annotated[Number, Field(ge=0, le=1)], Tag("factor")] | Annotated[Literal["base"], Tag("base")],
    Discriminator(_warmup_tag),
]


CropScale = Annotated[Annotated[CropRange, Tag("range")] | Annotated[CropAtSize, Tag("rule")], Discriminator(_crop_tag)]
CropRatio = Annotated[tuple[Positive, Positive], Field(strict=False), AfterValidator(in_order)]


def need_a_batch(global_batch: int | None, info: ValidationInfo) -> int | None:
    """The rule of a section that has batch_per_worker, too: one of the two is given."""
    if "batch_per_worker" in info.data and info.data["batch_per_worker"] is None and global_batch is None:
        raise broken_rule(
            "batch_per_worker or global_batch is needed",
            fix="add one of them",
            alternatives=("batch_per_worker", "global_batch"),
        )
    return global_batch


class Phase(Section):
    name: str | None = None
    epochs: Count
    resolution: Resolution
    """Training size in pixels, or a ramp `{start, end, multiple_of}` over the phase's epochs."""
    batch_per_worker: BatchPerWorker | None = None
    """Samples that a worker takes at once. Alone, it stays whatever the number of workers, and the LR follows. auto: as
    many as its memory holds in training at this phase's size; see `resolute batch-size`."""
    global_batch: Annotated[Count | None, Field(validate_default=True)] = None
    """Samples per step over all workers, kept whatever their number. With `batch_per_worker` beside it, workers take no
    more than that at once and accumulate gradients up to this."""
    lr_scale: Positive = 1.0
    """Factor on the learning rate for the whole phase."""
    warmup_epochs: NonNegative = 0.0
    """Epochs (fractions allowed) over which the LR climbs to the phase's value."""
    warmup_start_factor: WarmupStart = 0.1
    """Share of the phase's LR at which its warm-up starts; base: at the LR of a batch of base_batch, as in Goyal et
    al. 2017, section 2.2."""
    crop_scale: CropScale = (0.08, 1.0)
    """Least and greatest share of the image's area in a training crop, or `{scale, at}` to keep the size of objects."""
    crop_ratio: CropRatio = (3 / 4, 4 / 3)
    """Narrowest and widest training crop, width / height."""
    centre_crop: Fraction | None = None
    """Train on the centre crop of this share of the shorter side, as evaluations judge it, instead of random crops."""
    trainable: Trainable = "all"
    """What learns: all, classifier, classifier_and_last_norm, or a number: the classifier and so many of the last
    blocks. All else is frozen, and computes as in evaluation, but for dropout right before a classifier.

    classifier_and_last_norm is FixRes (Touvron et al. 2019, arXiv:1906.06423): dropout is off, too, and the last norm's
    statistics follow its images. Its gain and bias learn here as well; the authors' code leaves these two as they are.
    """
    norm: Norm | None = None
    """What becomes of batch norms' statistics where this phase changes size or crop; the job's `norm` when absent.
    Recalibration waits until all learns: frozen norms stay as they are, and others follow their images."""

    @field_validator("global_batch")
    @classmethod
    def _some_batch(cls, global_batch: int | None, info: ValidationInfo) -> int | None:
        return need_a_batch(global_batch, info)

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup_epochs: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs")
        if epochs is not None and warmup_epochs > epochs:
            raise broken_rule(f"is longer than the phase's epochs: {epochs}", fix=f"use at most {epochs}")
        return warmup_epochs


class Stages(Section):
    """Phases of equal length whose size grows by equal steps, as EfficientNetV2's code lays them out: written
    `{from: 128, to: 300, stages: 4, epochs: 350}`, these are 171, 214, 257 and 300 px.
    """

    start: Annotated[Pixels, Field(alias="from")]
    """The size before the first step: the first stage is already one step larger."""
    to: Pixels
    stages: Count
    epochs: Count
    """Of all stages together; where they do not divide, an epoch belongs to the stage in which it begins."""
    batch_per_worker: BatchPerWorker | None = None
    global_batch: Annotated[Count | None, Field(validate_default=True)] = None
    warmup_epochs: NonNegative = 0.0
    """Of the first stage."""
    warmup_start_factor: WarmupStart = 0.1
    crop_scale: CropScale = (0.08, 1.0)
    crop_ratio: CropRatio = (3 / 4, 4 / 3)

    @field_validator("epochs")
    @classmethod
    def _one_for_each(cls, epochs: int, info: ValidationInfo) -> int:
        stages = info.data.get("stages", 1)
        if epochs < stages:
            raise broken_rule(f"is less than one for each of {stages} stages", fix="use more, or fewer stages")
        return epochs

    @field_validator("global_batch")
    @classmethod
    def _some_batch(cls, global_batch: int | None, info: ValidationInfo) -> int | None:
        return need_a_batch(global_batch, info)

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup_epochs: float, info: ValidationInfo) -> float:
        if {"stages", "epochs"} <= info.data.keys():
            first = math.ceil(info.data["epochs"] / info.data["stages"])
            if warmup_epochs > first:
                raise broken_rule(f"is longer than the first stage's epochs: {first}", fix=f"use at most {first}")
        return warmup_epochs

    def phases(self) -> tuple[Phase, ...]:
        """One for each stage."""
        common = self.model_dump(include={"batch_per_worker", "global_batch", "crop_ratio"})
        first = self.model_dump(include={"warmup_epochs", "warmup_start_factor"})
        ends = [math.ceil(self.epochs * stage / self.stages) for stage in range(self.stages + 1)]
        sizes = [self.start + (self.to - self.start) * stage // self.stages for stage in range(1, self.stages + 1)]
        return tuple(
            Phase(epochs=end - begin, resolution=size, crop_scale=self.crop_scale, **common, **({} if begin else first))
            for (begin, end), size in zip(pairwise(ends), sizes, strict=True)
        )


def _phases_tag(value: Any) -> str:
    return "growing" if isinstance(value, (dict, Stages)) else "list"


def _expanded(phases: tuple[Phase, ...] | Stages) -> tuple[Phase, ...]:
    return phases.phases() if isinstance(phases, Stages) else phases


if TYPE_CHECKING:
    Phases = tuple[Phase, ...]
else:
    Phases = Annotated[
        Annotated[tuple[Phase, ...], Field(strict=False, min_length=1), Tag("list")]
        | Annotated[Stages, Tag("growing")],
        Discriminator(_phases_tag),
        AfterValidator(_expanded),
    ]


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


class Evaluation(Section):
    resolution: Pixels | None = None
    """Size at which to evaluate; the phase's training size when absent."""
    crop_ratio: Fraction = 224 / 256
    """Side of the centre crop as a share of the image's shorter side."""
    flip_tta: bool = False
    """Average the logits of each image and its mirror image."""
    batch_per_worker: Count = 256
    every_epochs: Count = 1
    """Evaluate after every so many epochs; always at a phase's end."""


class Workers(Section):
    """As many workers as there are, within bounds: a run goes on when nodes are lost, and grows when they are back."""

    min: Count = 1
    max: Count

    @field_validator("max")
    @classmethod
    def _in_order(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("min", 1)
        if most < least:
            raise broken_rule(f"is below min: {least}", fix=f"use {least} or more")
        return most


def _workers_tag(value: Any) -> str:
    return "range" if isinstance(value, (dict, Workers)) else "number"


class Run(Section):
    mode: Literal["single", "ray"] = "single"
    """single: one process; ray: one Ray Train worker per GPU, or CPU workers."""
    workers: Annotated[
        Annotated[Count, Tag("number")] | Annotated[Workers, Tag("range")], Discriminator(_workers_tag)
    ] = 1
    """A number, or `{min, max}` for a run that goes on with what there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the GPU has it, else fp16; fp32 on CPU."""
    threads_per_worker: Count | None = None
    """Threads for torch's CPU kernels; the machine's cores divided by the workers when absent."""
    lease_s: Positive = 2.0
    """How far ahead workers may train without asking; a stop takes effect within it."""
    grace_s: Positive | None = None
    """Seconds between the signal to stop and the kill, if known: leases become so short that a save still fits."""
    transition_timeout_s: Positive = 300.0
    """How long ranks wait for each other's acknowledgement at a transition."""
    stall_timeout_s: Positive = 300.0
    """How long a worker may show no progress before it is ended and the run goes on from the last checkpoint."""
    attempts_without_progress: Count = 3
    """After so many attempts in a row that saved nothing new, the run gives up."""

    @property
    def most_workers(self) -> int:
        return self.workers.max if isinstance(self.workers, Workers) else self.workers

    @property
    def least_workers(self) -> int:
        return self.workers.min if isinstance(self.workers, Workers) else self.workers


class Checkpoint(Section):
    every_epochs: Count = 1
    """Save after every so many epochs; always at a phase's end and on a stop."""
    every_minutes: Positive | None = 15.0
    """Save as often within epochs, too; null: not."""
    keep_last: Count = 2
    """Newest checkpoints to keep besides those of the phase boundaries."""
    keep_best: bool = True
    """Keep the checkpoint with the highest top-1 accuracy, too."""


class JobConfig(Section):
    """A whole job: everything a run depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Names the run's directory: letters, digits, dot, dash, underscore."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    model: Model
    loss: Loss = Loss()
    optimizer: Optimizer = Sgd()
    ema: Ema | None = None
    learning_rate: LearningRate
    phases: Phases
    """A list, or `{from, to, stages, epochs}` for stages of growing size."""
    augmentation: Augmentation = Augmentation()
    """What is done to training images besides crop and flip, and how often parts of the model are dropped."""
    norm: Norm = KeepNorm()
    """What becomes of batch norms' running statistics wherever the training size or crop changes."""
    evaluation: Evaluation = Evaluation()
    run: Run = Run()
    checkpoint: Checkpoint = Checkpoint()

    @property
    def num_epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

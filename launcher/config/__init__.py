"""The job file's types: what a user may say, with the unit in each name and the rule beside each field.

Files and overrides are read in `job_file.py`, errors get their words in `mistakes.py`; this package holds only the
types, imports neither torch nor ray, and touches no disk. Every model is strict: unknown keys are errors, and `None`
means "not given". `job.py` has the whole; each other file is a part of it.
"""

from launcher.config.augmentation import Augmentation, Growing, RandAugment
from launcher.config.data import Data
from launcher.config.job import JobConfig
from launcher.config.learning_rate import (
    Constant,
    Cosine,
    Exponential,
    LearningRate,
    PiecewiseLinear,
    Polynomial,
    Shape,
    Step,
)
from launcher.config.model import Ema, Model
from launcher.config.norm import FreezeNorm, Norm, RecalibrateNorm
from launcher.config.optimizer import AdamW, Lamb, Lars, Loss, Optimizer, RmsProp, Sgd
from launcher.config.phase import CropAtSize, Phase, Ramp, Trainable
from launcher.config.run import Checkpoint, Evaluation, Run, Workers
from launcher.config.values import (
    MAX_RESOLUTION_PX,
    MIN_RESOLUTION_PX,
    Count,
    NodeDirectory,
    Positive,
    Section,
    broken_rule,
)

__all__ = [
    "MAX_RESOLUTION_PX",
    "MIN_RESOLUTION_PX",
    "AdamW",
    "Augmentation",
    "Checkpoint",
    "Constant",
    "Cosine",
    "Count",
    "CropAtSize",
    "Data",
    "Ema",
    "Evaluation",
    "Exponential",
    "FreezeNorm",
    "Growing",
    "JobConfig",
    "Lamb",
    "Lars",
    "LearningRate",
    "Loss",
    "Model",
    "NodeDirectory",
    "Norm",
    "Optimizer",
    "Phase",
    "PiecewiseLinear",
    "Polynomial",
    "Positive",
    "Ramp",
    "RandAugment",
    "RecalibrateNorm",
    "RmsProp",
    "Run",
    "Section",
    "Sgd",
    "Shape",
    "Step",
    "Trainable",
    "Workers",
    "broken_rule",
]

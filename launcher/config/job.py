"""A whole job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from launcher.config.augmentation import Augmentation
from launcher.config.data import Data
from launcher.config.learning_rate import LearningRate
from launcher.config.model import Ema, Model
from launcher.config.norm import KeepNorm, Norm
from launcher.config.optimizer import Loss, Optimizer, Sgd
from launcher.config.run import Checkpoint, Evaluation, Run
from launcher.config.stages import Phases
from launcher.config.values import Section


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

"""Models and optimizers by name, where models start from, and what they cost."""

from launcher.models.build import ModelError, build_model, check_model, start_at_prior
from launcher.models.cost import measure_flops
from launcher.models.layout import lay_out
from launcher.models.optimizers import OptimizerError, build_optimizer, check_optimizer
from launcher.models.rates import Rates, check_rates
from launcher.models.scaling import Relative, compare_scaling
from launcher.models.trainable import check_trainable, let_learn, set_training
from launcher.models.weights import check_weights, start_from

__all__ = [
    "ModelError",
    "OptimizerError",
    "Rates",
    "Relative",
    "build_model",
    "build_optimizer",
    "check_model",
    "check_optimizer",
    "check_rates",
    "check_trainable",
    "check_weights",
    "compare_scaling",
    "lay_out",
    "let_learn",
    "measure_flops",
    "set_training",
    "start_at_prior",
    "start_from",
]

"""What learns, and how the rest computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from launcher.config import Model, Trainable
from launcher.models import ModelError, build_model, check_trainable, let_learn, set_training
from launcher.models.anatomy import last_norm

DROPPING = Model(name="small_resnet", options={"width": 4, "blocks_per_stage": 1, "dropout": 0.5})


def network() -> nn.Module:
    return build_model(DROPPING, num_classes=3, seed=0)


def learning(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("all", {"stem", "blocks", "classifier"}),
        ("classifier", {"classifier"}),
        ("classifier_and_last_norm", {"blocks", "classifier"}),
        (3, {"blocks", "classifier"}),
        (4, {"stem", "blocks", "classifier"}),
    ],
)
def test_only_the_parts_that_are_named_learn(trainable: Trainable, parts: set[str]) -> None:
    model = network()
    let_learn(model, trainable)
    assert learning(model) == parts


def test_what_is_thawed_learns_again() -> None:
    model = network()
    let_learn(model, "classifier")
    let_learn(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frozen_parts_compute_as_in_evaluation_and_the_others_as_in_training() -> None:
    model = network()
    let_learn(model, 1)
    set_training(model.train(), 1)
    training = {name for name, module in model.named_modules() if module.training}
    assert {"", "classifier", "dropout", "blocks", "blocks.2", "blocks.2.bn1", "blocks.2.relu"} <= training
    assert not {name for name in training if name.startswith(("stem", "blocks.0", "blocks.1"))}


def test_of_a_frozen_network_only_the_last_norms_statistics_follow_the_images() -> None:
    model = network()
    let_learn(model, "classifier_and_last_norm")
    set_training(model.train(), "classifier_and_last_norm")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(torch.rand(4, 3, 16, 16))
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {f"blocks.2.bn2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("config", [DROPPING, Model(name="mobilenet_v3_small")], ids=lambda config: config.name)
def test_in_fixres_the_last_norm_alone_trains_and_nothing_is_dropped(config: Model) -> None:
    model = build_model(config, num_classes=3, seed=0)
    let_learn(model, "classifier_and_last_norm")
    set_training(model.train(), "classifier_and_last_norm")
    assert any(isinstance(module, nn.Dropout) for module in model.modules())
    assert [name for name, module in model.named_modules() if module.training] == [last_norm(model)]


def test_with_everything_learning_the_mode_is_that_of_train() -> None:
    model = network().eval()
    set_training(model, "all")
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "trainable", "reason"),
    [
        ("resnet18", 10, r"phases\[1\].trainable: resnet18 has 9 layers before its classifier"),
        ("vgg11", "classifier_and_last_norm", "vgg11 has no norms; use classifier, or a number of blocks"),
    ],
)
def test_parts_that_a_model_has_not_got_are_refused(name: str, trainable: Trainable, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        check_trainable(Model(name=name), num_classes=3, by_phase=["all", trainable])

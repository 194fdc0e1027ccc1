"""Optimizers by name: what they train at which rate and with which decay."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from launcher.config import Model, Optimizer
from launcher.models import OptimizerError, build_model, build_optimizer, check_optimizer
from launcher.models.anatomy import layers

SMALL = Model(name="small_resnet", options={"width": 8, "blocks_per_stage": 1})


def optimizer_for(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    wanted: Optimizer = TypeAdapter(Optimizer).validate_python(options)
    return build_optimizer(wanted, model)


def option(optimizer: torch.optim.Optimizer, key: str) -> dict[nn.Parameter, Any]:
    return {parameter: group[key] for group in optimizer.param_groups for parameter in group["params"]}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, "SGD"),
        ({"name": "adamw"}, "AdamW"),
        ({"name": "rmsprop", "smoothing": 0.9, "momentum": 0.9, "epsilon": 0.0316}, "RMSprop"),
        ({"name": "lamb"}, "Lamb"),
        ({"name": "lars"}, "Lars"),
    ],
)
def test_every_optimizer_steps_down_a_slope(options: dict[str, Any], kind: str) -> None:
    if kind in ("Lamb", "Lars"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = optimizer_for(model, **options)
    assert type(optimizer).__name__ == kind
    images, wanted = torch.rand(8, 3), torch.rand(8, 1)
    losses = []
    for _ in range(20):
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.zero_grad()
        loss = (model(images) - wanted).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_norms_and_biases_take_the_weight_decay_of_their_own() -> None:
    model = build_model(SMALL, num_classes=3, seed=0)
    decay = option(optimizer_for(model, name="sgd", weight_decay=5e-4, norm_weight_decay=0.0), "weight_decay")
    for name, parameter in model.named_parameters():
        assert decay[parameter] == (5e-4 if parameter.ndim > 1 else 0.0), name


def test_what_a_timm_model_exempts_from_weight_decay_is_exempt() -> None:
    pytest.importorskip("timm")
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = build_model(Model(name="timm/vit_tiny_patch16_224", options=options), num_classes=3, seed=0)
    decay = option(optimizer_for(model, name="adamw", weight_decay=0.05, norm_weight_decay=0.0), "weight_decay")
    assert decay[model.get_parameter("pos_embed")] == decay[model.get_parameter("cls_token")] == 0
    assert decay[model.get_parameter("blocks.0.mlp.fc1.weight")] == 0.05


def test_each_layer_learns_slower_than_the_one_behind_it_by_the_same_factor() -> None:
    model = build_model(SMALL, num_classes=3, seed=0)
    factors = option(optimizer_for(model, name="sgd", layer_decay=0.5), "lr_factor")
    by_layer = [{factors[model.get_parameter(name)] for name in names} for names in layers(model)]
    assert by_layer == [{0.5**4}, {0.5**3}, {0.5**2}, {0.5}, {1.0}]


def test_without_layer_decay_all_learn_at_the_plans_rate_in_two_groups() -> None:
    model = build_model(SMALL, num_classes=3, seed=0)
    optimizer = optimizer_for(model, name="sgd")
    assert set(option(optimizer, "lr_factor").values()) == {1.0}
    assert len(optimizer.param_groups) == 2
    assert len(option(optimizer, "lr_factor")) == len(list(model.parameters()))


def test_an_optimizer_of_timms_is_refused_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    wanted: Optimizer = TypeAdapter(Optimizer).validate_python({"name": "lamb"})
    with pytest.raises(OptimizerError, match=r"lamb needs timm; pip install 'resolute\[timm\]'"):
        check_optimizer(wanted)

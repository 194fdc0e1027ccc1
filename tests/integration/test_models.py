"""Models by name, what they refuse, and what they cost."""

from __future__ import annotations

import pytest
import torch

from launcher.config import Model, Sgd
from launcher.models import ModelError, build_model, build_optimizer, check_model, measure_flops

SMALL = Model(name="small_resnet", options={"width": 8, "blocks_per_stage": 1})


@pytest.mark.parametrize("resolution", [8, 15, 24, 64])
def test_the_small_network_takes_any_size(resolution: int) -> None:
    model = build_model(SMALL, num_classes=7, seed=0)
    assert model(torch.zeros(2, 3, resolution, resolution)).shape == (2, 7)


def test_the_small_network_with_group_norm_treats_every_image_by_itself() -> None:
    grouped = SMALL.model_copy(update={"options": {**SMALL.options, "norm": "group"}})
    model = build_model(grouped, num_classes=7, seed=0).train()
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(model(images), torch.cat([model(images[:1]), model(images[1:])]))
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_the_small_networks_dropout_draws_in_training_alone() -> None:
    dropping = SMALL.model_copy(update={"options": {**SMALL.options, "dropout": 0.5}})
    model, images = build_model(dropping, num_classes=7, seed=0).train(), torch.rand(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (build_model(SMALL, num_classes=3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(name="resnet1800"), "did you mean .*resnet18"),
        (Model(name="fcn_resnet50"), "not known"),
        (Model(name="resnet18", options={"depth": 3}), "model.options"),
        (Model(name="small_resnet", options={"norm": "layer"}), "norm is one of batch, group"),
        (Model(name="vit_b_16"), "128 px"),
        (Model(name="googlenet", options={"init_weights": False}), "one logit"),
    ],
)
def test_a_model_that_cannot_do_the_job_is_refused_before_anything_runs(model: Model, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(model, num_classes=10, resolutions=[128])


def test_models_that_can_are_let_through() -> None:
    check_model(Model(name="resnet50", blurpool=True), num_classes=10, resolutions=[96, 224])
    check_model(SMALL, num_classes=10, resolutions=[16, 32])


def test_flops_are_those_that_he_et_al_report_for_resnet50() -> None:
    flops = measure_flops(Model(name="resnet50"), num_classes=1000, resolutions=[224, 112])
    assert flops[224] == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision's table: 4.09 billion multiply-adds
    assert flops[112] / flops[224] == pytest.approx(0.25, rel=0.1)


def test_blurpool_wraps_strided_convolutions_of_enough_channels_and_adds_no_weights() -> None:
    plain = build_model(Model(name="resnet18"), num_classes=10, seed=0)
    blurred = build_model(Model(name="resnet18", blurpool=True), num_classes=10, seed=0)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in blurred.parameters())
    wrapped = {name for name, module in blurred.named_modules() if type(module).__name__ == "_BlurredConvolution"}
    strided = {
        name
        for name, module in plain.named_modules()
        if isinstance(module, torch.nn.Conv2d) and max(module.stride) > 1 and module.in_channels >= 16
    }
    assert wrapped == strided
    assert "conv1" not in wrapped  # the images' own three channels


def test_norms_and_biases_take_the_weight_decay_of_their_own() -> None:
    model = build_model(SMALL, num_classes=3, seed=0)
    optimizer = build_optimizer(Sgd(weight_decay=5e-4, norm_weight_decay=0.0), model)
    decay = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[parameter] == (5e-4 if parameter.ndim > 1 else 0.0), name

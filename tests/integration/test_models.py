"""Models by name, what they refuse, and what they cost."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.models import VisionTransformer

from launcher.config import Model
from launcher.models import ModelError, build_model, check_model, measure_flops, start_at_prior
from launcher.models.any_size import AnySizeVisionTransformer

SMALL = Model(name="small_resnet", options={"width": 8, "blocks_per_stage": 1})
SMALL_VIT: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 24,
    "mlp_dim": 48,
    "num_classes": 4,
}


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
        (Model(name="resnet18", options={"weights": "DEFAULT"}), "say model.pretrained"),
        (Model(name="small_resnet", options={"norm": "layer"}), "norm is one of batch, group"),
        (Model(name="vit_b_16"), "100 px .*its patches are 16 px wide: use 96 px"),
        (Model(name="maxvit_t"), "100 px"),
        (Model(name="googlenet", options={"init_weights": False}), "one logit"),
        (Model(name="vgg11", zero_init_residual=True), "no residual blocks"),
    ],
)
def test_a_model_that_cannot_do_the_job_is_refused_before_anything_runs(model: Model, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(model, num_classes=10, resolutions=[100])


@pytest.mark.parametrize(
    "model",
    [SMALL, Model(name="resnet50", blurpool=True), Model(name="regnet_y_400mf"), Model(name="vit_b_16")],
    ids=lambda model: str(model.name),
)
def test_models_that_can_are_let_through(model: Model) -> None:
    check_model(model, num_classes=10, resolutions=[96, 224])


def test_flops_are_those_that_he_et_al_report_for_resnet50() -> None:
    flops = measure_flops(Model(name="resnet50"), num_classes=1000, resolutions=[224, 112])
    assert flops[224] == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision's table: 4.09 billion multiply-adds
    assert flops[112] / flops[224] == pytest.approx(0.25, rel=0.1)


def test_blurpool_wraps_strided_convolutions_of_enough_channels_and_adds_no_weights() -> None:
    plain = build_model(Model(name="resnet18"), num_classes=10, seed=0)
    blurred = build_model(Model(name="resnet18", blurpool=True), num_classes=10, seed=0)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in blurred.parameters())
    wrapped = {name for name, module in blurred.named_modules() if type(module).__name__ == "BlurredConvolution"}
    strided = {
        name
        for name, module in plain.named_modules()
        if isinstance(module, torch.nn.Conv2d) and max(module.stride) > 1 and module.in_channels >= 16
    }
    assert wrapped == strided
    assert "conv1" not in wrapped  # the images' own three channels


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "small_resnet", "timm/resnet18"])
def test_residual_blocks_that_start_at_zero_pass_on_what_they_get(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    model = build_model(Model(name=name, zero_init_residual=True), num_classes=5, seed=0)
    blocks = [module for module in model.modules() if type(module).__name__ in ("BasicBlock", "Bottleneck")]
    plain = [block for block in blocks if block.downsample is None]
    assert plain
    for block in plain:
        channels = next(module for module in block.modules() if isinstance(module, torch.nn.Conv2d)).in_channels
        images = torch.rand(2, channels, 8, 8)
        torch.testing.assert_close(block.train()(images), images)


def test_a_classifier_for_bce_starts_at_the_classes_prior_probability() -> None:
    model = build_model(SMALL, num_classes=12, seed=0)
    start_at_prior(model, num_classes=12)
    features = torch.zeros(1, 32)
    assert model.get_submodule("classifier")(features).sigmoid().mean().item() == pytest.approx(1 / 13)
    assert model.get_parameter("classifier.bias").tolist() == pytest.approx([-math.log(12)] * 12)


def test_a_vision_transformer_computes_what_torchvisions_does_at_its_own_size() -> None:
    ours, theirs = AnySizeVisionTransformer(**SMALL_VIT).eval(), VisionTransformer(**SMALL_VIT).eval()
    torch.nn.init.normal_(theirs.heads.head.weight)
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_torchvisions_vision_transformers_are_built_to_take_any_size() -> None:
    with torch.device("meta"):
        assert isinstance(build_model(Model(name="vit_b_32"), num_classes=4, seed=0), AnySizeVisionTransformer)


def timms_vit() -> torch.nn.Module:
    pytest.importorskip("timm")
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return build_model(Model(name="timm/vit_tiny_patch16_224", options=options), num_classes=4, seed=0)


@pytest.mark.parametrize(
    "make", [lambda: AnySizeVisionTransformer(**SMALL_VIT), timms_vit], ids=["torchvision", "timm"]
)
def test_a_position_embedding_is_resampled_to_every_size_and_learns_there(make: Callable[[], torch.nn.Module]) -> None:
    parameters = dict((model := make()).named_parameters())
    torch.nn.init.normal_(next(p for name, p in parameters.items() if name.endswith("head.weight")))
    positions = next(p for name, p in parameters.items() if "pos_emb" in name)
    for resolution in (16, 32, 48):
        model.zero_grad()
        logits = model(torch.rand(2, 3, resolution, resolution))
        torch.autograd.backward(logits.square().sum())
        assert positions.grad is not None
        assert positions.grad.abs().sum() > 0
        assert positions.shape == (1, 1 + 16, 24)


def test_without_timm_its_models_are_refused_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"timm/resnet18 needs timm; pip install 'resolute\[timm\]'"):
        check_model(Model(name="timm/resnet18"), num_classes=3, resolutions=[64])


def test_a_model_that_timm_does_not_have_is_refused_with_near_names() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=r"did you mean .*timm/resnet18"):
        check_model(Model(name="timm/resnet1888"), num_classes=3, resolutions=[64])

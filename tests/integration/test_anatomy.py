"""Layers, classifier and last norm, in models of many families."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
import torchvision

from launcher.config import Model
from launcher.models import build_model
from launcher.models.anatomy import classifier, last_norm, layers

# A model of each of torchvision's families -> number of layers, classifier, last norm. Layers: the stem, each block,
# the last convolution where there is one outside of the blocks, and each linear map.
FAMILIES = {
    "alexnet": (5 + 3, "classifier.6", None),
    "convnext_tiny": (1 + 3 + 9 + 3 + 3 + 3 + 1, "classifier.2", "classifier.0"),
    "densenet121": (1 + 6 + 12 + 24 + 16 + 3 + 1, "classifier", "features.norm5"),
    "efficientnet_b0": (1 + 16 + 1 + 1, "classifier.1", "features.8.1"),
    "mobilenet_v3_small": (1 + 11 + 1 + 2, "classifier.3", "features.12.1"),
    "resnet18": (1 + 8 + 1, "fc", "layer4.1.bn2"),
    "resnet50": (1 + 16 + 1, "fc", "layer4.2.bn3"),
    "shufflenet_v2_x0_5": (1 + 16 + 1 + 1, "fc", "conv5.1"),
    "squeezenet1_0": (1 + 8 + 1, "classifier.1", None),
    "swin_t": (1 + 12 + 3 + 1, "head", "norm"),
    "vgg11_bn": (8 + 3, "classifier.6", "features.26"),
    "vit_b_32": (1 + 12 + 1, "heads.head", "encoder.ln"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_models_layers_are_its_blocks_and_what_stands_alone(name: str) -> None:
    with torch.device("meta"):
        model = build_model(Model(name=name), num_classes=7, seed=0)
    found = layers(model)
    assert (len(found), classifier(model), last_norm(model)) == FAMILIES[name]
    assert sorted(chain(*found)) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224", "mobilenetv4_conv_small", "nfnet_f0"])
def test_timms_models_have_layers_too(name: str) -> None:
    pytest.importorskip("timm")
    with torch.device("meta"):
        model = build_model(Model(name=f"timm/{name}"), num_classes=7, seed=0)
    assert model.get_submodule(classifier(model)).out_features == 7
    assert sorted(chain(*layers(model))) == sorted(name for name, _ in model.named_parameters())
    assert len(layers(model)) >= 14


def test_the_classifier_gives_the_logits_in_every_model_of_torchvisions() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    # RegNets compute their widths with tensors, which the meta device has not.
    for name in (name for name in names if not name.startswith("regnet")):
        with torch.device("meta"):
            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # else they warn
            model = torchvision.models.get_model(name, num_classes=7, **options)
        last = model.get_submodule(classifier(model))
        assert getattr(last, "out_features", None) == 7 or getattr(last, "out_channels", None) == 7, name


def test_what_lies_in_no_module_belongs_to_the_first_layer() -> None:
    with torch.device("meta"):
        model = build_model(Model(name="vit_b_32"), num_classes=7, seed=0)
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= set(layers(model)[0])


def test_a_shortcuts_norm_is_not_the_last_one() -> None:
    model = build_model(Model(name="small_resnet", options={"width": 4, "blocks_per_stage": 1}), num_classes=3, seed=0)
    assert last_norm(model) == "blocks.2.bn2"
    assert len(layers(model)) == 1 + 3 + 1

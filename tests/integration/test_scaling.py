"""What deeper and wider models cost, beside larger images."""

from __future__ import annotations

import pytest

from launcher.config import Model
from launcher.models import ModelError, compare_scaling


def test_a_familys_costs_are_counted_and_turned_into_sizes() -> None:
    family = compare_scaling(Model(name="resnet50"), num_classes=1000, resolution=224)
    by_name = {one.name: one for one in family}
    assert [one.flops for one in family] == sorted(one.flops for one in family)
    own, deeper, wider = (by_name[name] for name in ("resnet50", "resnet101", "wide_resnet50_2"))
    assert (own.times, own.same_cost_px) == (1, 224)
    assert own.flops == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision's GFLOPS count a multiply-add as one
    assert deeper.flops == pytest.approx(2 * 7.80e9, rel=0.01)
    assert deeper.same_cost_px == 312  # 224 * sqrt(7.80 / 4.09) = 309.3
    assert deeper.layers > own.layers == wider.layers
    assert wider.mean_channels > own.mean_channels


def test_twice_the_depth_costs_twice_and_twice_the_width_four_times() -> None:
    family = compare_scaling(
        Model(name="small_resnet", options={"width": 32, "blocks_per_stage": 4}), num_classes=10, resolution=32
    )
    own, deeper, wider = family
    assert [one.name for one in family] == ["width 32, 4 blocks", "width 32, 8 blocks", "width 64, 4 blocks"]
    assert deeper.times == pytest.approx(2, rel=0.05)
    assert wider.times == pytest.approx(4, rel=0.05)
    assert (own.times, wider.same_cost_px) == (1, 64)


@pytest.mark.parametrize(
    ("name", "relative"), [("efficientnet_b0", "efficientnet_b1"), ("efficientnet_v2_s", "efficientnet_v2_m")]
)
def test_families_are_told_by_their_names(name: str, relative: str) -> None:
    names = [one.name for one in compare_scaling(Model(name=name), num_classes=10, resolution=64)]
    assert name in names
    assert relative in names
    assert all(one.startswith(name[:-1]) for one in names)


def test_a_model_without_relatives_is_told_so() -> None:
    with pytest.raises(ModelError, match=r"model\.name: googlenet has no smaller or larger relatives"):
        compare_scaling(Model(name="googlenet", options={"aux_logits": False}), num_classes=10, resolution=64)

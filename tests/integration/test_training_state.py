"""Optimizer state and random number generators as plain tensors, and back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adafactor, Adam, AdamW, NAdam, Optimizer, RMSprop

from launcher.training_state import (
    TrainingStateError,
    load_optimizer_tensors,
    optimizer_tensors,
    restore_rng,
    rng_tensors,
)

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "sgd momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: AdamW(p, lr=0.01, amsgrad=True),
    "adam, fused": lambda p: Adam(p, lr=0.01, fused=True),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "nadam": lambda p: NAdam(p, lr=0.01),
    "adafactor": lambda p: Adafactor(p, lr=0.01),
    "lamb": lambda p: timm_optimizers().Lamb(p, lr=0.01),
    "lars": lambda p: timm_optimizers().Lars(p, lr=0.01, momentum=0.9),
}


def timm_optimizers() -> Any:
    return pytest.importorskip("timm.optim")


def build(seed: int = 0, width: int = 4, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 36, 2))
    return model.to(dtype).to(memory_format=torch.channels_last)


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        dtype = next(model.parameters()).dtype
        images = torch.randn(2, 3, 8, 8, generator=generator).to(dtype)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def same_bits(left: Tensor, right: Tensor) -> bool:
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return False
    return left.contiguous().numpy(force=True).tobytes() == right.contiguous().numpy(force=True).tobytes()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_training_goes_on_bit_for_bit_after_a_round_trip(make: Callable[[Any], Optimizer]) -> None:
    model = build()
    optimizer = make(model.parameters())
    train(model, optimizer, range(3))
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    resumed = build(seed=1)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer = make(resumed.parameters())
    load_optimizer_tensors(resumed, resumed_optimizer, saved)
    for one, other in ((model, optimizer), (resumed, resumed_optimizer)):
        train(one, other, range(3, 6))
    left, right = optimizer_tensors(model, optimizer), optimizer_tensors(resumed, resumed_optimizer)
    assert left.keys() == right.keys()
    assert all(same_bits(left[name], right[name]) for name in left)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_state_is_named_after_its_parameter() -> None:
    model = build()
    optimizer = SGD([{"params": model.get_submodule(layer).parameters()} for layer in "30"], momentum=0.9)
    train(model, optimizer, range(1))
    names = {f"{layer}.{kind}/momentum_buffer" for layer in (0, 3) for kind in ("weight", "bias")}
    assert optimizer_tensors(model, optimizer).keys() == names


def test_an_optimizer_that_has_not_stepped_has_no_state() -> None:
    model = build()
    optimizer = AdamW(model.parameters())
    assert optimizer_tensors(model, optimizer) == {}
    train(model, optimizer, range(1))
    load_optimizer_tensors(model, optimizer, {})
    assert optimizer_tensors(model, optimizer) == {}


def test_loaded_state_is_a_copy_in_the_parameters_memory_format_and_the_saved_dtype() -> None:
    model = build()
    optimizer = SGD(model.parameters(), momentum=0.9)
    buffer = torch.randn(model.get_parameter("0.weight").shape, dtype=torch.float64)
    load_optimizer_tensors(model, optimizer, {"0.weight/momentum_buffer": buffer})
    loaded = optimizer.state[model.get_parameter("0.weight")]["momentum_buffer"]
    assert loaded.is_contiguous(memory_format=torch.channels_last)
    assert same_bits(loaded, buffer)
    buffer.zero_()
    assert loaded.abs().sum() > 0


def test_half_precision_state_keeps_its_dtype() -> None:
    model = build(dtype=torch.bfloat16)
    optimizer = AdamW(model.parameters())
    train(model, optimizer, range(1))
    saved = optimizer_tensors(model, optimizer)
    assert saved["0.weight/exp_avg"].dtype == torch.bfloat16
    load_optimizer_tensors(model, optimizer, saved)
    assert optimizer_tensors(model, optimizer)["0.weight/exp_avg"].dtype == torch.bfloat16
    assert optimizer_tensors(model, optimizer)["0.weight/step"].dtype == torch.float32


def test_python_numbers_come_back_as_what_they_were() -> None:
    model = build()
    optimizer = SGD(model.parameters())
    state = {"count": 2**60 + 1, "decay": 0.1, "warm": True, "absent": None}
    optimizer.state[model.get_parameter("0.bias")].update(state)
    saved = optimizer_tensors(model, optimizer)
    assert all(tensor.dim() == 0 for tensor in saved.values())
    load_optimizer_tensors(model, optimizer, saved)
    loaded = optimizer.state[model.get_parameter("0.bias")]
    assert loaded == {"count": 2**60 + 1, "decay": 0.1, "warm": True}
    assert [type(value) for value in loaded.values()] == [int, float, bool]


@pytest.mark.parametrize(
    ("key", "shape", "sentence"),
    [
        ("9.weight/momentum_buffer", (4,), "9.weight/momentum_buffer: the optimizer has no parameter '9.weight'"),
        ("0.weight/momentum_buffer", (8, 3, 3, 3), r"shape \(8, 3, 3, 3\) does not fit .* \(4, 3, 3, 3\)"),
        ("0.bias/momentum_buffer", (1, 4), r"shape \(1, 4\) does not fit .* \(4,\)"),
        ("momentum_buffer", (4,), "no parameter ''"),
    ],
)
def test_state_of_another_model_is_refused_and_changes_nothing(key: str, shape: tuple[int, ...], sentence: str) -> None:
    model = build()
    optimizer = SGD(model.parameters(), momentum=0.9)
    train(model, optimizer, range(1))
    before = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    with pytest.raises(TrainingStateError, match=sentence):
        load_optimizer_tensors(model, optimizer, {"0.bias/momentum_buffer": torch.zeros(4), key: torch.zeros(shape)})
    after = optimizer_tensors(model, optimizer)
    assert all(same_bits(before[name], after[name]) for name in before)


def test_a_parameter_that_is_not_the_models_is_refused() -> None:
    model, other = build(), build(width=6)
    with pytest.raises(TrainingStateError, match=r"shape \(6, 3, 3, 3\) that is not in the model"):
        optimizer_tensors(model, SGD(other.parameters()))


def test_state_that_is_neither_tensor_nor_number_is_refused() -> None:
    model = build()
    optimizer = SGD(model.parameters())
    optimizer.state[model.get_parameter("0.bias")]["history"] = [torch.zeros(4)]
    with pytest.raises(TrainingStateError, match=r"0\.bias/history: a list in the optimizer cannot be saved"):
        optimizer_tensors(model, optimizer)


def draw() -> list[float]:
    """One number from each generator; Gaussian, of which NumPy and Python each keep every second one."""
    return [torch.randn(1).item(), float(np.random.standard_normal()), random.gauss(0, 1), random.random()]


@pytest.mark.parametrize("drawn_before", [0, 1, 2])
def test_generators_go_on_where_they_were(drawn_before: int) -> None:
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    for _ in range(drawn_before):
        draw()
    saved = rng_tensors()
    expected = [draw() for _ in range(3)]
    restore_rng(saved)
    assert [draw() for _ in range(3)] == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_generator_goes_on_where_it_was() -> None:
    torch.cuda.manual_seed(1)
    torch.randn(1, device="cuda")
    saved = rng_tensors()
    expected = torch.randn(3, device="cuda").tolist()
    restore_rng(saved)
    assert torch.randn(3, device="cuda").tolist() == expected

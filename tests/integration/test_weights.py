"""Where a model starts from: a file's weights, or published ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from launcher.checkpoint import export_model
from launcher.config import Model
from launcher.models import ModelError, build_model, check_weights, start_from
from launcher.models.any_size import AnySizeVisionTransformer

State = Mapping[str, torch.Tensor]
OPTIONS = {"width": 4, "blocks_per_stage": 1}


def model_of(num_classes: int = 3, seed: int = 0, **more: Any) -> torch.nn.Module:
    return build_model(Model(name="small_resnet", options=OPTIONS, **more), num_classes=num_classes, seed=seed)


def from_file(path: Path, **more: Any) -> Model:
    return Model(name="small_resnet", options=OPTIONS, weights=str(path), **more)


def write_safetensors(path: Path, model: torch.nn.Module) -> None:
    save_file(model.state_dict(), path)


def write_export(path: Path, model: torch.nn.Module) -> None:
    export_model(path, model, {"num_classes": 3})


def write_state_dict(path: Path, model: torch.nn.Module) -> None:
    torch.save(model.state_dict(), path)


def write_training_programs_file(path: Path, model: torch.nn.Module) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_safetensors, "a.safetensors"),
        (write_export, "model.safetensors"),
        (write_state_dict, "a.pth"),
        (write_training_programs_file, "a.tar"),
    ],
)
def test_a_models_weights_come_out_of_whatever_file_they_are_in(write: Any, name: str, tmp_path: Path) -> None:
    saved, path = model_of(seed=1), tmp_path / name
    write(path, saved)
    check_weights(from_file(path), num_classes=3)
    started = model_of(seed=2)
    start_from(started, from_file(path))
    for key, tensor in saved.state_dict().items():
        assert torch.equal(tensor, started.state_dict()[key]), key


def test_a_classifier_for_other_classes_is_replaced_by_a_fresh_one(tmp_path: Path) -> None:
    saved, path = model_of(num_classes=3, seed=1), tmp_path / "a.safetensors"
    write_safetensors(path, saved)
    started, fresh = (model_of(num_classes=5, seed=2) for _ in range(2))
    start_from(started, from_file(path))
    for key, tensor in started.state_dict().items():
        expected = fresh if key.startswith("classifier.") else saved
        assert torch.equal(tensor, expected.state_dict()[key]), key


def test_weights_without_blurpool_fit_a_model_that_has_it_and_so_do_its_own(tmp_path: Path) -> None:
    models = [build_model(Model(name="resnet18", blurpool=blur), num_classes=3, seed=1) for blur in (False, True)]
    for number, saved in enumerate(models):
        path = tmp_path / f"{number}.safetensors"
        write_safetensors(path, saved)
        config = Model(name="resnet18", blurpool=True, weights=str(path))
        started = build_model(config, num_classes=3, seed=2)
        start_from(started, config)
        for name, tensor in models[1].state_dict().items():
            assert torch.equal(tensor, started.state_dict()[name]), name


def test_a_position_embedding_of_another_size_is_resampled(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    small, large = (
        AnySizeVisionTransformer(size, patch_size=8, num_layers=1, num_heads=2, hidden_dim=24, mlp_dim=24)
        for size in (32, 48)
    )
    write_safetensors(path, small)
    start_from(large, Model(name="vit_b_16", weights=str(path)))
    positions = large.get_parameter("encoder.pos_embedding")
    assert positions.shape == (1, 1 + 36, 24)
    assert torch.equal(positions[:, 0], small.get_parameter("encoder.pos_embedding")[:, 0])


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = model_of().state_dict()
    del state["stem.0.weight"]
    save_file({**state, "extra": torch.zeros(1), "stem.1.weight": torch.zeros(9)}, path)
    reasons = r"it has no stem.0.weight; has extra, which the model has not; has stem.1.weight of shape \(9,\) instead"
    with pytest.raises(ModelError, match=reasons):
        check_weights(from_file(path), num_classes=3)


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malice()}, "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Malice(), protocol=2))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ModelError, match=f"{name} cannot be read"):
            check_weights(from_file(Path(name)), num_classes=3)
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", None, "there is no such file"),
        ("a.safetensors", b"no tensors", "cannot be read"),
        ("a.pth", b"no tensors", "cannot be read"),
        ("a.pth", b"", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        check_weights(from_file(path), num_classes=3)


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="holds no state dict"):
        check_weights(from_file(tmp_path / "a.pth"), num_classes=3)


@pytest.mark.parametrize(
    ("name", "choice", "reason"),
    [
        ("resnet18", "IMAGENET1K_V9", "resnet18 has IMAGENET1K_V1"),
        ("small_resnet", "DEFAULT", "nobody publishes weights"),
        ("timm/resnet18", "a9_in1k", "timm publishes .*a1_in1k"),
    ],
)
def test_published_weights_that_there_are_none_of_are_refused_with_those_there_are(
    name: str, choice: str, reason: str
) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(ModelError, match=reason):
        check_weights(Model(name=name, pretrained=choice), num_classes=3)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_without_a_network_published_weights_are_refused_with_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for a minute
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    with pytest.raises(ModelError, match=rf"DEFAULT of {name} cannot be fetched .*or give the file by model\.weights"):
        check_weights(Model(name=name, pretrained="DEFAULT"), num_classes=3)


def _no_network(*_arguments: object, **_options: object) -> None:
    raise OSError("the network is unreachable")


def without_counters(state: State) -> State:
    """As torch's batch norms were saved before version 0.4.1."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def with_dotted_names(state: State) -> State:
    """As torchvision's densenets were saved before torch refused dots within a module's name."""
    old = {"norm1": "norm.1", "norm2": "norm.2", "conv1": "conv.1", "conv2": "conv.2"}
    return without_counters(
        {
            ".".join(old.get(part, part) if "denselayer" in name else part for part in name.split(".")): tensor
            for name, tensor in state.items()
        }
    )


@pytest.mark.parametrize(
    ("name", "as_published"),
    [
        ("squeezenet1_1", dict),
        ("resnet18", without_counters),
        ("densenet121", with_dotted_names),
        ("mnasnet0_5", lambda state: state),  # it needs the version that torch keeps in the state dict's metadata
    ],
)
def test_published_weights_from_the_cache_are_used_under_whatever_names_they_were_saved(
    name: str, as_published: Callable[[State], State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enum's own file name and hash: what is cached is all that a machine without a network needs."""
    torchvision = pytest.importorskip("torchvision")
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    saved = build_model(Model(name=name), num_classes=1000, seed=1)
    torch.save(as_published(saved.state_dict()), cached)
    config = Model(name=name, pretrained="IMAGENET1K_V1")
    check_weights(config, num_classes=10)
    model, fresh = (build_model(config, num_classes=10, seed=2) for _ in range(2))
    start_from(model, config)
    of_the_classifier = {name for name, tensor in fresh.named_parameters() if tensor.shape[0] == 10}
    assert of_the_classifier
    for key, tensor in model.state_dict().items():
        expected = fresh if key in of_the_classifier else saved
        assert torch.equal(tensor, expected.state_dict()[key]), key

"""Checkpoints: committed as a whole or not at all, refused when damaged, found, loaded and pruned."""

from __future__ import annotations

import json
import os
import pickle
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from launcher import failpoints
from launcher.checkpoint import Parts, estimate_bytes, export_model, load, newest_valid, prune, save, scan
from launcher.config import AdamW, Checkpoint, Optimizer, RmsProp, Sgd
from launcher.disk_budget import disk_budget
from launcher.durable import remove_temporaries
from launcher.manifest import CheckpointError, verify
from launcher.plan import Position
from launcher.training_state import optimizer_tensors, rng_tensors

ROOT = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)


def parts_of(value: float) -> Parts:
    return {
        "model": {"weight": torch.full((3, 5), value), "count": torch.tensor(7), "mask": torch.tensor([True, False])},
        "optimizer": {"weight/momentum_buffer": torch.full((3, 5), -value)},
        "rng": {},
    }


def same(left: Tensor, right: Tensor) -> bool:
    """Equal in shape, dtype and every bit."""
    flat = [t.reshape(-1).clone(memory_format=torch.contiguous_format) for t in (left, right)]
    alike = (left.shape, left.dtype) == (right.shape, right.dtype)
    return alike and flat[0].view(torch.uint8).equal(flat[1].view(torch.uint8))


def weight_of(checkpoints: Path) -> float:
    """The weight in the newest valid checkpoint."""
    newest = newest_valid(checkpoints).newest
    assert newest is not None
    return load(newest)[0]["model"]["weight"][0, 0].item()


def test_parts_and_facts_come_back(tmp_path: Path) -> None:
    facts = {"plan_fingerprint": "abc", "world_size": 2, "loss_scaler": {"scale": 65536.0}, "loss": float("inf")}
    saved = save(tmp_path / "checkpoints", Position(5), parts_of(1.5), facts)
    assert saved.path == tmp_path / "checkpoints" / "e00005-s000000000"
    assert sorted(os.listdir(saved.path)) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
    ]
    (found,) = scan(tmp_path / "checkpoints").valid
    assert found == saved
    assert found.num_bytes == sum(path.stat().st_size for path in saved.path.glob("*.safetensors"))
    parts, loaded_facts = load(found)
    assert loaded_facts == facts
    assert parts.keys() == {"model", "optimizer", "rng"}
    for part, tensors in parts_of(1.5).items():
        assert parts[part].keys() == tensors.keys()
        assert all(same(parts[part][name], tensor) for name, tensor in tensors.items())


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    tensor = torch.randint(0, 256, (*shape, 8), dtype=torch.uint8).view(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()) and tensor.dim() > 1:
        tensor = tensor.transpose(0, -1)
    return tensor[..., ::2] if draw(st.booleans()) else tensor


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=12).filter(lambda t: t != "__metadata__"), tensors(), max_size=4))
def test_any_tensor_keeps_its_bits(tmp_path_factory: pytest.TempPathFactory, some: dict[str, Tensor]) -> None:
    parts, _ = load(save(tmp_path_factory.mktemp("run"), Position(1), {"model": some}, {}))
    assert parts["model"].keys() == some.keys()
    assert all(same(parts["model"][name], tensor) for name, tensor in some.items())


def test_an_info_crosses_process_borders(tmp_path: Path) -> None:
    info = save(tmp_path, Position(1), parts_of(1), {"a": [1]})
    assert pickle.loads(pickle.dumps(info)) == info


def test_loaded_tensors_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    info = save(tmp_path, Position(1), parts_of(2.5), {})
    parts, _ = load(info)
    with (info.path / "model.safetensors").open("r+b") as file:
        file.write(bytes(info.parts["model"].size_bytes))
    assert parts["model"]["weight"].eq(2.5).all()


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Linear(64, 64, bias=False), "head": nn.Linear(64, 64, bias=False)})
    model["head"].weight = model["embed"].weight
    info = save(tmp_path, Position(1), {"model": model.state_dict()}, {})
    assert info.parts["model"].tied == {"head.weight": "embed.weight"}
    assert info.num_bytes < 2 * 64 * 64 * 4
    loaded, _ = load(verify(info.path))
    assert loaded["model"]["head.weight"] is loaded["model"]["embed.weight"]
    model.load_state_dict(loaded["model"])


def test_views_of_one_memory_are_told_apart(tmp_path: Path) -> None:
    flat = torch.arange(12.0)
    views = {"flat": flat, "first": flat[:6], "square": flat.view(3, 4), "turned": flat.view(3, 4).T, "row": flat[6:]}
    empty = {"one": torch.empty(0), "two": torch.empty(0)}
    info = save(tmp_path, Position(1), {"model": views | empty}, {})
    assert info.parts["model"].tied == {}
    loaded, _ = load(info)
    assert all(same(loaded["model"][name], view) for name, view in views.items())


def test_a_channels_last_model_keeps_its_memory_format(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts, _ = load(save(tmp_path, Position(1), {"model": model.state_dict()}, {}))
    assert parts["model"]["weight"].is_contiguous()
    nn.init.zeros_(model.weight)
    model.load_state_dict(parts["model"])
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(same(model.state_dict()[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_takes_what_was_reckoned_before_there_was_a_state(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(1000, 1000), nn.BatchNorm1d(1000))
    sgd = partial(torch.optim.SGD, list(model.parameters()), lr=0.1)
    rms_prop = partial(torch.optim.RMSprop, list(model.parameters()), lr=0.1)
    trained: list[tuple[Optimizer, torch.optim.Optimizer, bool]] = [
        (Sgd(momentum=0.9), sgd(momentum=0.9), True),
        (Sgd(momentum=0.0), sgd(), False),
        (RmsProp(name="rmsprop"), rms_prop(), False),
        (RmsProp(name="rmsprop", momentum=0.9), rms_prop(momentum=0.9), False),
        (AdamW(name="adamw"), torch.optim.AdamW(model.parameters()), False),
    ]
    for config, optimizer, has_average in trained:
        model(torch.ones(2, 1000)).sum().backward()
        optimizer.step()
        parts = {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer), "rng": rng_tensors()}
        saved = save(tmp_path, Position(1), parts | ({"average": model.state_dict()} if has_average else {}), {})
        reckoned = disk_budget(
            config,
            Checkpoint(),
            state_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
            parameter_bytes=sum(parameter.nbytes for parameter in model.parameters()),
            num_boundaries=1,
            has_average=has_average,
        )
        assert 0 <= reckoned.checkpoint_bytes - saved.num_bytes < 150_000


def test_files_are_flushed_then_the_manifest_then_the_directory_then_renamed_then_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def spy_rename(source: Path, target: Path) -> None:
        calls.append(("rename", target.name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    save(tmp_path, Position(1), parts_of(1), {})
    assert calls == [
        ("fsync", "model.safetensors"),
        ("fsync", "optimizer.safetensors"),
        ("fsync", "rng.safetensors"),
        ("fsync", "manifest.json"),
        ("fsync", f".tmp-{os.getpid()}-e00001-s000000000"),
        ("rename", "e00001-s000000000"),
        ("fsync", tmp_path.name),
    ]


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_files_may_be_read_by_whom_the_users_umask_lets_read(tmp_path: Path, umask: int, mode: int) -> None:
    previous = os.umask(umask)
    try:
        saved = save(tmp_path / "run" / "checkpoints", Position(1), parts_of(1), {})
        export_model(tmp_path / "run" / "model.safetensors", nn.Linear(2, 2), {})
    finally:
        os.umask(previous)
    files = [tmp_path / "run" / "model.safetensors", *saved.path.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}


def test_what_a_process_that_was_killed_within_safetensors_left_is_removed(tmp_path: Path) -> None:
    script = """
import resource, signal, sys, torch
from pathlib import Path
from launcher.checkpoint import export_model
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
export_model(Path(sys.argv[1]), torch.nn.Linear(100, 100), {})
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.safetensors")], cwd=ROOT)
    assert killed.returncode == -signal.SIGXFSZ
    assert len(os.listdir(tmp_path)) == 1
    remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == []


def test_facts_that_json_cannot_hold_are_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save(tmp_path, Position(1), parts_of(1), {"scale": torch.tensor(1.0)})
    assert os.listdir(tmp_path) == []


def test_the_newest_position_wins_whatever_was_written_last(tmp_path: Path) -> None:
    for position in (Position(2), Position(10), Position(2, 640), Position(0, 64)):
        save(tmp_path, position, parts_of(1), {})
    found = scan(tmp_path)
    assert [info.position for info in found.valid] == [Position(10), Position(2, 640), Position(2), Position(0, 64)]
    assert scan(tmp_path, stop_after=2).valid == found.valid[:2]
    assert newest_valid(tmp_path).newest == found.valid[0]


def test_a_position_saved_again_counts_as_newer_and_overwrites_nothing(tmp_path: Path) -> None:
    first = save(tmp_path, Position(3), parts_of(1), {})
    second = save(tmp_path, Position(3), parts_of(2), {})
    assert [info.path for info in scan(tmp_path).valid] == [second.path, first.path]
    assert weight_of(tmp_path) == 2
    prune(tmp_path, keep=[Position(3)], keep_last=1)
    third = save(tmp_path, Position(3), parts_of(3), {})
    assert [path.name for path in (second.path, third.path)] == ["e00003-s000000000-r001", "e00003-s000000000-r002"]
    assert weight_of(tmp_path) == 3


def test_a_damaged_checkpoint_of_the_position_is_not_in_the_way(tmp_path: Path) -> None:
    damaged = save(tmp_path, Position(3), parts_of(1), {})
    (damaged.path / "manifest.json").unlink()
    assert save(tmp_path, Position(3), parts_of(2), {}).path.name == "e00003-s000000000-r001"
    assert weight_of(tmp_path) == 2


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "checkpoints").newest is None
    (tmp_path / ".tmp-1-e00001-s000000000").mkdir()
    assert newest_valid(tmp_path).newest is None


def test_where_all_are_damaged_nobody_starts_over_in_silence(tmp_path: Path) -> None:
    for epoch in (1, 2):
        (save(tmp_path, Position(epoch), parts_of(1), {}).path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        newest_valid(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path} holds no valid checkpoint; move it away to start over",
        "  e00002-s000000000: model.safetensors is missing",
        "  e00001-s000000000: model.safetensors is missing",
    ]


def test_the_estimate_is_an_upper_bound_and_not_far_off(tmp_path: Path) -> None:
    parts = {part: {f"layer{i}.weight": torch.zeros(1000) for i in range(50)} for part in ("model", "optimizer")}
    info = save(tmp_path, Position(1), parts, {"plan_fingerprint": "0" * 64})
    written = sum(path.stat().st_size for path in info.path.iterdir())
    assert written <= estimate_bytes(parts) <= 1.3 * written


SAVE_TWICE = """
import os, sys
from pathlib import Path
import torch
from launcher import failpoints
from launcher.checkpoint import prune, save
from launcher.plan import Position

def save_twice(checkpoints):
    for epoch in (2, 3):
        save(checkpoints, Position(epoch), {"model": {"weight": torch.full((3, 5), float(epoch))}, "rng": {}}, {})
        prune(checkpoints, keep=[], keep_last=1)

for number, armed in enumerate(sys.argv[2:]):
    child = os.fork()
    if child == 0:
        failpoints._armed = failpoints.parse(armed)
        save_twice(Path(sys.argv[1], str(number)))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

SURVIVING_EPOCH = {
    "checkpoint.begin:1": 1,
    "checkpoint.part_written:1": 1,
    "checkpoint.part_written:2": 1,
    "checkpoint.before_manifest:1": 1,
    "checkpoint.before_rename:1": 1,
    "checkpoint.after_rename:1": 2,
    "checkpoint.committed:1": 2,
    "checkpoint.deleting:1": 2,
    "checkpoint.part_written:3": 2,
    "checkpoint.before_rename:2": 2,
    "checkpoint.after_rename:2": 3,
    "checkpoint.deleting:2": 3,
}


def test_a_process_killed_anywhere_leaves_a_valid_newest_checkpoint(tmp_path: Path) -> None:
    for number in range(len(SURVIVING_EPOCH)):
        save(tmp_path / str(number), Position(1), parts_of(1), {})
    # One process imports torch, and forks one to be killed for each point.
    command = [sys.executable, "-c", SAVE_TWICE, str(tmp_path), *SURVIVING_EPOCH]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([str(-signal.SIGKILL)] * len(SURVIVING_EPOCH), "")
    for number, (armed, epoch) in enumerate(SURVIVING_EPOCH.items()):
        checkpoints = tmp_path / str(number)
        assert newest_valid(checkpoints).rejected == []
        assert weight_of(checkpoints) == epoch, armed
        remove_temporaries(checkpoints)
        assert {path.name for path in checkpoints.iterdir()} == {i.path.name for i in scan(checkpoints).valid}
        save(checkpoints, Position(epoch + 1), parts_of(9), {})
        assert weight_of(checkpoints) == 9


def test_every_point_of_saving_and_pruning_is_died_at() -> None:
    died_at = {armed.split(":")[0] for armed in SURVIVING_EPOCH}
    assert died_at == {point for point in failpoints.POINTS if point.startswith("checkpoint.")}


def test_phase_boundaries_and_the_last_ones_stay(tmp_path: Path) -> None:
    for epoch in range(1, 7):
        save(tmp_path, Position(epoch), parts_of(epoch), {})
        prune(tmp_path, keep=[Position(2), Position(6)], keep_last=2)
    assert sorted(os.listdir(tmp_path)) == ["e00002-s000000000", "e00005-s000000000", "e00006-s000000000"]


def test_damaged_ones_do_not_count_among_the_last_and_are_left_to_be_looked_at(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save(tmp_path, Position(epoch), parts_of(epoch), {})
    for epoch in (4, 5):
        (tmp_path / f"e0000{epoch}-s000000000" / "model.safetensors").write_bytes(b"")
    removed = prune(tmp_path, keep=[], keep_last=2)
    assert [path.name for path in removed] == ["e00001-s000000000"]
    assert weight_of(tmp_path) == 3
    assert len(os.listdir(tmp_path)) == 4


def test_pruning_an_empty_or_absent_directory_does_nothing(tmp_path: Path) -> None:
    assert prune(tmp_path, keep=[], keep_last=1) == []
    assert prune(tmp_path / "absent", keep=[], keep_last=1) == []


def test_an_exported_model_loads_with_safetensors_alone_and_tells_what_it_is(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), "b": nn.Linear(2, 2)})
    model["tied"] = model["b"]
    metadata = {"job": "demo", "classes": ["ö", "x"], "channel_mean": (1.0, 2.0, 3.0), "train_resolution": 32}
    path = tmp_path / "model.safetensors"
    export_model(path, model, metadata)
    fresh = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3), "b": nn.Linear(2, 2), "tied": nn.Linear(2, 2)})
    fresh.load_state_dict(load_file(path))
    assert all(same(fresh.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["resolute"]) == {**metadata, "channel_mean": [1.0, 2.0, 3.0]}
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    metadata = dict.fromkeys("abcdefgh", 1)
    for name in ("one", "two", "three"):
        export_model(tmp_path / name, model, metadata)
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1

"""What strangers may send: jobs, run directories, checkpoints, cards. Each is refused with a sentence, or harmless.

`resolute` runs no code from any of them, follows no link out of a run directory, and shows no control characters.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from launcher.manifest import describe_part, sealed
from launcher.paths import RunPaths
from launcher.printable import UNPRINTABLE
from tests.faults.commands import Commands, Ended
from tests.faults.tiny_run import draw_data
from tests.integration.toy import final_sums, write_job

NEWEST = "e00004-s000000000"


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, the job, and what a run of it ends with."""
    folder = tmp_path_factory.mktemp("honest")
    draw_data(folder / "data")
    write_job(folder, folder / "data")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, commands: Commands) -> RunPaths:
    paths = RunPaths(folder / "whole")
    done = commands.resolute("run", folder / "toy.yaml", "--run-dir", paths.root)
    assert done.code == 0, done
    return paths


@pytest.fixture
def run(whole: RunPaths, tmp_path: Path) -> RunPaths:
    """A run that has saved after epochs 2, 3 and 4 of 5."""
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(whole.root, paths.root)
    shutil.rmtree(paths.checkpoints / "e00005-s000000000")
    paths.model.unlink()
    return paths


def shows_no_control_characters(ended: Ended) -> bool:
    return not [text for text in (ended.out, ended.err) if UNPRINTABLE.search(text.replace("\n", " "))]


def forge(checkpoint: Path, **entries: object) -> None:
    """Have a stranger who knows the seal change the manifest, and describe the parts as they lie there now."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["manifest_sha256"]
    parts = {path.stem: describe_part(path, {}).model_dump() for path in checkpoint.glob("*.safetensors")}
    (checkpoint / "manifest.json").write_bytes(sealed({**manifest, "parts": parts, **entries}))


class Payload:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, spoils: Path):
        self.spoils = spoils

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, (f"touch '{self.spoils}'",)


def pickle_as_safetensors(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Payload(checkpoint.parents[1] / "SPOILS")))
    forge(checkpoint)


def torch_save_as_safetensors(checkpoint: Path) -> None:
    torch.save({"a": Payload(checkpoint.parents[1] / "SPOILS")}, checkpoint / "model.safetensors")
    forge(checkpoint)


def lead_outside(checkpoint: Path) -> None:
    outside = checkpoint.parents[2] / "outside.safetensors"
    shutil.copyfile(checkpoint / "model.safetensors", outside)
    entry = describe_part(outside, {}).model_dump()
    forge(checkpoint, parts={"../../../outside": entry})


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    """To the same content, elsewhere."""
    elsewhere = path.parents[2] / f"{path.name}-elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def rewrite_tensors(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = checkpoint / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(change(tensors), path)
    forge(checkpoint)


HOSTILE_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle that runs a command, as model.safetensors": (pickle_as_safetensors, "is not a safetensors file"),
    "torch.save's, as model.safetensors": (torch_save_as_safetensors, "is not a safetensors file"),
    "a part's name that leads outside": (lead_outside, "manifest.json is not ours: parts."),
    "a part that is a pipe": (lambda c: replace_by_pipe(c / "rng.safetensors"), "is not a file; only plain files"),
    "a part that is a link": (lambda c: replace_by_link(c / "rng.safetensors"), "is a symbolic link; only plain"),
    "a directory that is a link": (replace_by_link, "is a link or a file; only a directory of its own is read"),
    "a manifest that nests 100,000 deep": (
        lambda c: (c / "manifest.json").write_text("[" * 100_000),
        "manifest.json is damaged, or not ours",
    ),
    "a manifest of a terabyte": (
        lambda c: os.truncate(c / "manifest.json", 1 << 40),
        "1,099,511,627,776 bytes long, as none of ours is",
    ),
    "a manifest whose epoch is NaN": (lambda c: forge(c, epoch=float("nan")), "manifest.json is not ours: epoch"),
    "a later release's": (lambda c: forge(c, format_version=2), "format version 2, and this release reads 1"),
    "another run's": (lambda c: forge(c, facts={"run": "another"}), "was saved by another run"),
}
"""Done to the newest checkpoint, and what is said of it."""


@pytest.mark.parametrize("harm", HOSTILE_CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_and_the_one_before_taken(
    harm: str, run: RunPaths, whole: RunPaths, commands: Commands
) -> None:
    act, sentence = HOSTILE_CHECKPOINTS[harm]
    act(run.checkpoints / NEWEST)
    resumed = commands.resolute("resume", run.root)
    assert resumed.code == 0, resumed
    assert sentence in resumed.out
    assert "resuming at epoch 3" in resumed.out
    assert not (run.root / "SPOILS").exists()
    assert final_sums(run) == final_sums(whole)


def remove_model(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    forge(checkpoint)


def swap_random_numbers(checkpoint: Path) -> None:
    tensors = {f"rank0/{name}": tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    save_file(tensors, checkpoint / "rng.safetensors")
    forge(checkpoint)


MISFITS: dict[str, Callable[[Path], None]] = {
    "facts of another kind": lambda c: forge(c, facts={"standing": "x", "loss_scaler": {}}),
    "no facts": lambda c: forge(c, facts={}),
    "a count less": lambda c: rewrite_tensors(c, lambda t: {n: v for n, v in t.items() if not n.endswith("tracked")}),
    "weights of another shape": lambda c: rewrite_tensors(c, lambda t: {n: torch.zeros(3) for n in t}),
    "weights of another type": lambda c: rewrite_tensors(c, lambda t: {n: v.double() for n, v in t.items()}),
    "a weight more": lambda c: rewrite_tensors(c, lambda t: {**t, "more": torch.zeros(1)}),
    "no model": remove_model,
    "another's random numbers": swap_random_numbers,
}


@pytest.mark.parametrize("harm", MISFITS)
def test_a_checkpoint_with_all_sums_right_that_does_not_fit_is_refused_by_name(
    harm: str, run: RunPaths, whole: RunPaths, commands: Commands
) -> None:
    MISFITS[harm](run.checkpoints / NEWEST)
    refused = commands.resolute("resume", run.root)
    assert refused.code == 2, refused
    assert refused.err.strip().splitlines()[-1].startswith(f"resolute: {NEWEST} does not fit this job")
    assert "Traceback" not in refused.err
    shutil.rmtree(run.checkpoints / NEWEST)
    assert commands.resolute("resume", run.root).code == 0
    assert final_sums(run) == final_sums(whole)


@pytest.mark.parametrize("event", ['"event": "epoch_trained"', '"event": "epoch_trained", "epoch": "x", "phase": []'])
def test_events_that_no_run_has_written_are_refused_before_training_goes_on(
    event: str, run: RunPaths, whole: RunPaths, commands: Commands
) -> None:
    before = sorted(path.name for path in run.checkpoints.iterdir())
    append_line(f'{{"time": "2026-03-14T12:00:00+00:00", {event}}}')(run)
    refused = commands.resolute("resume", run.root)
    assert refused.code == 2, refused
    assert refused.err.startswith("resolute: events.jsonl holds what no run has written (")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before
    run.events.unlink()
    assert commands.resolute("resume", run.root).code == 0
    assert final_sums(run) == final_sums(whole)


def link_checkpoints_elsewhere(run: RunPaths) -> None:
    """As to make pruning delete another run's checkpoints."""
    replace_by_link(run.checkpoints)


def append_line(text: str) -> Callable[[RunPaths], None]:
    def act(run: RunPaths) -> None:
        with run.events.open("a") as file:
            file.write(text + "\n")

    return act


def newest_claim(run: RunPaths) -> Path:
    return max(run.root.glob("owner-*.json"))


def everybodys(run: RunPaths) -> None:
    if os.geteuid() != 0:
        pytest.skip("A directory of another user was NOT tested: giving one away takes root")
    run.root.chmod(0o777)
    os.chown(run.root, 12345, 12345)


BOMB = "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))

HOSTILE_DIRECTORIES: dict[str, tuple[Callable[[RunPaths], object], str]] = {
    "job.yaml that calls a function": (
        lambda r: r.job.write_text(f'name: !!python/object/apply:os.system ["touch {r.root}/SPOILS"]'),
        "is not valid YAML",
    ),
    "job.yaml of nine to the twelfth values": (lambda r: r.job.write_text(BOMB), "aliases are written out"),
    "job.yaml that nests 10,000 deep": (lambda r: r.job.write_text("[" * 10_000), "nests too deeply"),
    "job.yaml of 100 MB": (lambda r: os.truncate(r.job, 100_000_000), "is longer than 100,000 characters"),
    "job.yaml that is no UTF-8": (lambda r: r.job.write_bytes(b"name: \xff\xfe"), "cannot be read"),
    "job.yaml that clears the screen": (
        lambda r: r.job.write_text(r.job.read_text() + '"\\e[2J": "\\e]0;owned\\a"\n'),
        "holds control characters",
    ),
    "job.yaml that is a pipe": (lambda r: replace_by_pipe(r.job), "is no run directory"),
    "job.yaml that is a link": (lambda r: replace_by_link(r.job), "job.yaml is a symbolic link"),
    "events.jsonl that is a link": (lambda r: replace_by_link(r.events), "events.jsonl is a symbolic link"),
    "events.jsonl that is a pipe": (lambda r: replace_by_pipe(r.events), "events.jsonl is no file"),
    "events.jsonl with a line that is no JSON": (append_line("rm -rf"), "not JSON"),
    "events.jsonl with a line that nests deep": (append_line("[" * 100_000), "not JSON"),
    "events.jsonl with an event of nothing": (append_line("{}"), "events.jsonl"),
    "checkpoints that is a link": (link_checkpoints_elsewhere, "checkpoints is a symbolic link"),
    "a claim that is a pipe": (lambda r: replace_by_pipe(newest_claim(r)), "is not a file; only plain files"),
    "a claim that is a link": (lambda r: replace_by_link(newest_claim(r)), "is a symbolic link; only plain"),
    "a claim of a gigabyte": (lambda r: os.truncate(newest_claim(r), 1 << 30), "is longer than 1,024 bytes"),
    "a directory of another user that all may write": (everybodys, "everybody may write into it"),
    "nothing that a run owns": (lambda r: newest_claim(r).unlink(), "holds files but no run"),
}
"""Done to a run directory that is then resumed, and what is said of it."""


@pytest.mark.parametrize("harm", HOSTILE_DIRECTORIES)
def test_a_hostile_run_directory_is_refused_with_a_sentence_and_left_alone(
    harm: str, run: RunPaths, commands: Commands
) -> None:
    act, sentence = HOSTILE_DIRECTORIES[harm]
    act(run)
    before = sums(run.root.parent)
    refused = commands.resolute("resume", run.root)
    assert refused.code == 2, refused
    assert refused.err.startswith("resolute: "), refused
    assert sentence in refused.err
    assert "Traceback" not in refused.err
    assert shows_no_control_characters(refused)
    assert not (run.root / "SPOILS").exists()
    assert sums(run.root.parent) == before


def test_a_run_directory_that_is_a_link_itself_is_its_owners_way_to_another_disk(
    run: RunPaths, whole: RunPaths, commands: Commands
) -> None:
    link = run.root.with_name("link")
    link.symlink_to(run.root)
    assert commands.resolute("resume", link).code == 0
    assert final_sums(run) == final_sums(whole)


HOSTILE_JOBS: dict[str, tuple[tuple[str, ...], str]] = {
    "a name that leads elsewhere": (("name=../../etc/owned",), "holds what a name may not hold"),
    "a name of two lines": (('name="a\\nb"',), "holds what a name may not hold"),
    "a name that sets the terminal's title": (('name="a\\e]0;owned\\a"',), "holds control characters"),
    "a phase's name that clears the screen": (('phases.0.name="\\e[2J"',), "holds control characters"),
    "a path with an end of text in it": (('data.train="a\\0b"',), "holds control characters"),
    "an override of what Python keeps": (("__class__.__init__.__globals__=1",), "is not a known key"),
    "an override that calls a function": (("name=!!python/object/apply:os.system ['id']",), "is not a YAML value"),
    "an override that nests 5,000 deep": (("model.options.x=" + "[" * 5000,), "is not a YAML value"),
    "a model that is a path": (("model.name=../../evil.py",), "is not known"),
    "a model that is a function of Python's": (("model.name=os.system",), "is not known"),
    "options that the model has not": (("model.options.norm_layer=os.system",), "cannot be built with"),
    "an infinite learning rate": (("learning_rate.base=.inf",), "must be a finite number"),
    "a learning rate that is none": (("learning_rate.base=.nan",), "must be a finite number"),
    "a seed of 5,000 digits": (("seed=" + "1" * 5000,), "is not a YAML value"),
    "data that is a device": (("data.train=/dev/zero",), "there is no such file"),
    "data that is a directory": (("data.train=/",), "there is no such file"),
}
"""Overrides of the honest job, and what is said of them."""


@pytest.mark.parametrize("harm", HOSTILE_JOBS)
def test_a_hostile_job_is_refused_with_a_sentence_before_anything_is_made(
    harm: str, folder: Path, tmp_path: Path, commands: Commands
) -> None:
    overrides, sentence = HOSTILE_JOBS[harm]
    refused = commands.resolute("run", folder / "toy.yaml", *overrides, cwd=tmp_path)
    assert refused.code == 2, refused
    assert sentence in refused.err
    assert "Traceback" not in refused.err
    assert shows_no_control_characters(refused)
    assert os.listdir(tmp_path) == []


def sums(folder: Path) -> dict[str, str]:
    """Of all plain files but claims below `folder`; the first megabyte, as some are sparse and vast."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at) / name
            if path.is_file() and not name.startswith("owner-"):
                with path.open("rb") as file:
                    found[str(path)] = hashlib.sha256(file.read(1 << 20)).hexdigest()
    return found


def rewrite_card(**changes: object) -> Callable[[Path], None]:
    def act(card: Path) -> None:
        card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))

    return act


HOSTILE_CARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "that nests 100,000 deep": (lambda c: c.write_text("[" * 100_000), "is not a card"),
    "of a terabyte": (lambda c: os.truncate(c, 1 << 40), "is longer than"),
    "that is a pipe": (replace_by_pipe, "is not a file"),
    "that is no UTF-8": (lambda c: c.write_bytes(b"\xff\xfe{}"), "cannot be read"),
    "that is a pickle": (lambda c: c.write_bytes(pickle.dumps(Payload(c.parent / "SPOILS"))), "cannot be read"),
    "whose mean is NaN": (rewrite_card(channel_mean=[float("nan")] * 3), "channel_mean"),
    "of another file": (rewrite_card(num_bytes=7), "it is another file's card"),
    "of a later release": (rewrite_card(format_version=2), "upgrade resolute"),
    "with a key of code": (rewrite_card(__import__="os"), "Extra inputs are not permitted"),
}


@pytest.mark.parametrize("harm", HOSTILE_CARDS)
def test_a_hostile_card_is_refused_with_a_sentence(harm: str, folder: Path, tmp_path: Path, commands: Commands) -> None:
    act, sentence = HOSTILE_CARDS[harm]
    data = shutil.copytree(folder / "data", tmp_path / "data")
    act(data / "train.card.json")
    job = write_job(tmp_path, data)
    refused = commands.resolute("run", job, cwd=tmp_path)
    assert refused.code == 2, refused
    assert sentence in refused.err
    assert "Traceback" not in refused.err
    assert shows_no_control_characters(refused)
    assert sorted(os.listdir(tmp_path)) == ["data", "toy.yaml"]
    assert not (data / "SPOILS").exists()


def test_a_class_that_is_named_to_rule_the_terminal_is_shown_as_it_is_written(
    folder: Path, tmp_path: Path, commands: Commands
) -> None:
    data = shutil.copytree(folder / "data", tmp_path / "data")
    card = json.loads((data / "train.card.json").read_text())
    names = [f"\x1b]0;owned\x07\x9b2J{number}" for number in range(len(card["classes"]))]
    (data / "train.card.json").write_text(json.dumps({**card, "classes": names, "source": "../../\x1b[2J"}))
    shown = commands.resolute("data", "info", data / "train.beton")
    assert shown.code == 0, shown
    assert "\\x1b]0;owned\\x07" in shown.out.replace("\n", "")
    assert shows_no_control_characters(shown)

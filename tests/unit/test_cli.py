"""The command line: what it prints, what it starts, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.attempts import NotUpError, RunFailedError
from launcher.cli import app as cli
from launcher.cli.errors import exit_code, explain
from launcher.coordinator import CoordinationError
from launcher.durable import DiskFullError
from launcher.manifest import CheckpointError
from launcher.mistakes import JobError
from launcher.planning import PlanError
from tests.unit.sample_jobs import FIVE_MISTAKES, MINIMAL

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
HEAVY = ("torch", "torchvision", "ray", "ffcv", "submitit")
COMMANDS = (
    ["run"],
    ["resume"],
    ["submit"],
    ["status"],
    ["logs"],
    ["cancel"],
    ["plan"],
    ["schema"],
    ["data", "write"],
    ["data", "info"],
    ["data", "draw"],
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`resolute ARGUMENTS` in an empty directory with a terminal of 80 columns: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["resolute", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        code = caught.value.code
        return code if isinstance(code, int) else 0, printed.out, printed.err

    return call


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("command", [["plan"], ["run"], ["run", "--run-dir", "runs/x"], ["run", "--mode", "ray"]])
def test_five_mistakes_are_five_messages_exit_code_2_and_nothing_started(
    command: list[str], call: Call, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(FIVE_MISTAKES)
    code, out, err = call(*command, "bad.yaml")
    assert (code, out) == (2, "")
    first, *mistakes = err.splitlines()
    assert first == "resolute: bad.yaml: 5 mistakes"
    assert len(mistakes) == 5
    assert all(re.match(r"  line \d+: [\w.\[\]]+: .+; .+", mistake) for mistake in mistakes)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["job.yaml"], "data.train: is needed to run; add data.train: FILE.beton"),
        (
            ["job.yaml", "data.train=no.beton", "data.val=neither.beton"],
            "data.val: neither.beton: there is no such file",
        ),
        (["job.yaml", "run.workers=3"], "data.train: is needed to run"),
        (["jub.yaml"], "there is no such job file"),
        (["job.yaml", "phases.0.epochs=0"], "phases[0].epochs: 0: must be at least 1; use 1 or more"),
    ],
)
def test_a_run_that_cannot_start_makes_no_directory(
    arguments: list[str], told: str, call: Call, job: Path, tmp_path: Path
) -> None:
    code, out, err = call("run", *arguments, "--run-dir", "runs/x")
    assert (code, out) == (2, "")
    assert told in err
    assert list(tmp_path.iterdir()) == [job]


def test_a_data_file_that_is_none_is_told_before_anything_starts(call: Call, job: Path, tmp_path: Path) -> None:
    (tmp_path / "train.beton").write_bytes(b"no beton")
    code, _, err = call("run", "job.yaml", "data.train=train.beton")
    assert code == 2
    assert "data.train: train.beton: cannot be used: " in err
    assert not (tmp_path / "runs").exists()


def test_a_plan_that_is_impossible_is_a_sentence_and_exit_code_2(call: Call, job: Path) -> None:
    code, out, err = call("plan", job, "--workers", 3)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "resolute: phases[0].global_batch: 8 does not divide by 3 workers; use 6 or 9"


def test_a_plan_needs_to_know_the_number_of_samples(call: Call, job: Path) -> None:
    code, _, err = call("plan", job, "data.num_samples=null")
    assert code == 2
    assert "data.num_samples: is needed, as there is no training file to count" in err


@pytest.mark.parametrize(
    "arguments", [["plan"], ["plan", "x", "--workers", "0"], ["plan", "x", "--format", "xml"], ["fly"]]
)
def test_wrong_arguments_end_with_exit_code_2(arguments: list[str], call: Call) -> None:
    assert call(*arguments)[0] == 2


def test_resuming_what_is_no_run_is_refused(call: Call, tmp_path: Path) -> None:
    code, _, err = call("resume", tmp_path)
    assert (code, "is no run directory (job.yaml is missing)" in err) == (2, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("job.yaml", []), 2),
        (PlanError("no"), 2),
        (CheckpointError("no"), 2),
        (DiskFullError("full"), 5),
        (CoordinationError("rank 1 has left"), 1),
        (RunFailedError("it fails again and again"), 1),
        (NotUpError("no Ray on n3"), 4),
        (FileNotFoundError(2, "No such file", "x.beton"), 2),
    ],
)
def test_errors_of_users_and_machines_have_their_exit_codes_and_a_sentence(error: Exception, code: int) -> None:
    assert exit_code(error) == code
    assert (explain(error) or "").startswith("resolute: ")


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("from a library"), KeyError("x"), AssertionError()])
def test_errors_of_ours_keep_their_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_the_plan_comes_as_json_too(call: Call) -> None:
    code, out, err = call("plan", "imagenet-rn50-16", "--workers", 8, "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert {"rows", "totals"} <= set(document)
    assert (
        document["rows"][12]
        | {
            "epoch": 12,
            "phase": 1,
            "resolution": 192,
            "batch_per_worker": 512,
            "global_batch": 4096,
            "steps": 312,
            "dropped_samples": 3215,
            "relative_cost": 1.0,
        }
        == document["rows"][12]
    )
    assert document["rows"][0]["lr_start"] == pytest.approx(1.7e-4)
    assert document["rows"][15]["lr_end"] == 0
    assert document["totals"]["saving"] == pytest.approx(1 - (12 * (160 / 192) ** 2 + 4) / 16)


def test_overrides_and_workers_reach_the_plan(call: Call, job: Path) -> None:
    _, out, _ = call("plan", job, "phases.0.epochs=5", "phases[1].resolution=64", "--workers", 4, "--format", "json")
    rows = json.loads(out)["rows"]
    assert [row["resolution"] for row in rows] == [16] * 5 + [64]
    assert {row["batch_per_worker"] for row in rows} == {2}


@pytest.mark.parametrize("recipe", JOBS, ids=lambda recipe: recipe.stem)
def test_a_recipes_plan_fits_80_columns_with_nothing_cut(recipe: Path, call: Call) -> None:
    code, out, _ = call("plan", recipe)
    assert code == 0
    assert "…" not in out
    table = out[: out.index(" epochs, ")].splitlines()[:-1]
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize("name", ["a name that is much longer than a column", "x" * 70, "[bold]x[/red]", "…"])
@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_no_phase_name_and_no_terminal_cuts_numbers(
    name: str, columns: str, call: Call, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call("plan", job, f"phases.0.name={json.dumps(name)}", "data.num_samples=123456789")
    assert code == 0
    assert out.count("…") == 2 * name.count("…")
    assert "15,432,098" in out
    assert re.search(r"0.00313 -> 0.00313 +1.00", out)
    assert name.split()[0][:8] in out


def test_the_plan_says_what_it_saves_or_costs_more(call: Call, job: Path) -> None:
    assert "saves 50% against all 3 at that size" in call("plan", job)[1]
    assert "200% more than all 3 at that size" in call("plan", job, "phases.0.resolution=64")[1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_the_command(command: list[str], call: Call) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert f"resolute {' '.join(command)} " in out.partition("Example")[2]


def test_help_of_all_lists_the_commands_with_examples_and_exit_codes(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "resume", "plan", "schema", "data"):
        assert re.search(rf"│ {command} ", out)
    assert "resolute run " in out.partition("Example")[2]
    assert "3 stopped and resumable" in out


def test_the_version_is_the_packages(call: Call) -> None:
    from launcher import __version__

    assert call("--version")[:2] == (0, f"resolute {__version__}\n")


class Yaml12Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as editors do, which follow YAML 1.2."""


Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("+-0123456789")
)


@pytest.fixture
def validator(call: Call) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    code, out, _ = call("schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))
    return jsonschema.Draft202012Validator(json.loads(out))


@pytest.mark.parametrize("recipe", JOBS, ids=lambda recipe: recipe.stem)
def test_the_schema_accepts_every_recipe(recipe: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(yaml.load(recipe.read_text(), Yaml12Loader))] == []


def test_the_schema_accepts_what_a_run_saves(validator: Any) -> None:
    from launcher.job_file import dump_job, load_job

    for recipe in JOBS:
        saved = yaml.safe_load(dump_job(load_job(str(recipe))))
        assert [error.message for error in validator.iter_errors(saved)] == []


@pytest.mark.parametrize(
    "line",
    ["sede: 1", "run: {mode: rya}", "data: {num_samples: 0}", "optimizer: {name: adam}", "loss: {x: 1}", "phases: []"],
)
def test_the_schema_refuses_mistakes(line: str, validator: Any) -> None:
    assert list(validator.iter_errors({**yaml.safe_load(MINIMAL), **yaml.safe_load(line)}))


def test_the_schema_holds_what_the_fields_mean_and_their_defaults(validator: Any) -> None:
    warmup = validator.schema["$defs"]["Phase"]["properties"]["warmup_epochs"]
    assert warmup["description"].startswith("Epochs (fractions allowed)")
    assert warmup["default"] == 0


def run_module(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, input=stdin)


def test_planning_imports_nothing_heavy() -> None:
    script = (
        "import sys; from launcher.cli.app import main\n"
        "sys.argv = ['resolute', 'plan', 'imagenet-rn50-16', '--format', 'json']\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = run_module("-c", script)
    assert (done.returncode, len(json.loads(done.stdout)["rows"])) == (0, 16)
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_leaves_early_gets_no_traceback(form: str) -> None:
    command = [sys.executable, "-m", "launcher", "plan", "imagenet-rn50-classic", "--format", form]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # Before the first line is written: as `| head`, but at a time that is certain.
        said = process.stderr.read().decode()
    assert said == ""
    assert process.returncode not in (0, 2)


def test_the_module_is_the_command() -> None:
    done = run_module("-m", "launcher", "plan", "quux")
    assert done.returncode == 2
    assert done.stderr.startswith("resolute: quux: 1 mistake\n")
    assert done.stdout == ""

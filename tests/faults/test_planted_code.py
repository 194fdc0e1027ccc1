"""Code planted in a run directory does not run when the run is resumed there, by whatever mechanism of Python's."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.paths import RunPaths
from tests.faults.tiny_run import draw_data
from tests.integration.toy import resolute, write_job

# As the console script does it: sys.path begins with the script's folder. (`python -m` would begin with the working
# directory before any line of ours is run.)
SCRIPT = "import sys; from launcher.cli.app import main; sys.exit(main())"
# Of the standard library only what nobody imports before `launcher`: sys.modules would shield the others.
MODULES = (
    *("sitecustomize", "usercustomize", "conftest", "launcher", "ffcv_datasets", "torch", "torchvision", "numpy"),
    *("torchmetrics", "yaml", "ray", "rich", "typer", "pydantic", "safetensors", "psutil", "secrets", "json"),
)


class Payload:
    def __init__(self, spoils: Path):
        self.spoils = spoils

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.spoils}/pickle'",)


def plant(folder: Path, spoils: Path) -> None:
    """Modules that shadow others, start-up hooks, pickles and executables, each of which would tell of itself."""
    folder.mkdir(exist_ok=True)
    for name in MODULES:
        code = f"open({str(spoils / name)!r}, 'w').close()\n"
        (folder / f"{name}.py").write_text(code)
        if name in ("launcher", "ffcv_datasets", "torch", "ray"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(code)
    (folder / "evil.pth").write_text(f"import os; os.system(\"touch '{spoils}/pth'\")\n")
    for name in ("model.pkl", "checkpoint.pt", "optimizer.bin", "latest.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Payload(spoils)))
    for name in ("nvidia-smi", "git", "sh", "python", "hostname", "lscpu"):
        (folder / name).write_text(f"#!/bin/sh\ntouch '{spoils}/{name}'\n")
        (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("planted") / "data")


@pytest.mark.parametrize("mode", ["single", "ray"])
def test_nothing_that_is_planted_in_a_run_directory_runs_when_it_is_resumed_from_there(
    mode: str, data: Path, tmp_path: Path
) -> None:
    paths, spoils = RunPaths(tmp_path / "run"), tmp_path / "spoils"
    spoils.mkdir()
    killed = resolute("run", write_job(tmp_path, data), "--run-dir", paths.root, failpoint="worker.lease_trained:10")
    assert killed.returncode != 0
    for folder in (paths.root, paths.checkpoints, max(paths.checkpoints.iterdir()), paths.logs):
        plant(folder, spoils)
    script = tmp_path / "bin" / "resolute"
    script.parent.mkdir()
    script.write_text(SCRIPT)

    resumed = subprocess.run(
        [sys.executable, script, "resume", ".", "--mode", mode],
        cwd=paths.root,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert sorted(os.listdir(spoils)) == []
    assert resumed.returncode == 0, resumed.stderr
    assert paths.model.is_file()


def test_what_was_planted_would_have_told_of_itself(tmp_path: Path) -> None:
    spoils = tmp_path / "spoils"
    spoils.mkdir()
    plant(tmp_path / "planted", spoils)
    subprocess.run([sys.executable, "-c", "import yaml, torch"], cwd=tmp_path / "planted", check=True)
    subprocess.run([tmp_path / "planted" / "git"], check=True)
    assert {"yaml", "torch", "git"} <= set(os.listdir(spoils))

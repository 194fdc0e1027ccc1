"""What must stay secret is in no file of a run, and in nothing that is printed: canaries in all the usual places."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ffcv_datasets.beton import Beton
from launcher.paths import RunPaths
from tests.faults.tiny_run import draw_data
from tests.integration.toy import JOB, write_job

CANARY = "canary7d1f0e5b"
VARIABLES = (
    *("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_KEY", "GITHUB_TOKEN", "SLURM_JWT", "SSH_AUTH_SOCK", "OPENAI_API_KEY", "DATABASE_PASSWORD"),
    *("http_proxy", "RAY_AUTH_TOKEN", "REDIS_PASSWORD", "MY_OWN"),
)
RAY_TOKEN = f"{CANARY}ray".encode().hex().ljust(64, "0")
# The driver as it is, but that the token of its private Ray is known. Other draws, such as a claim's name, stay.
DRIVER = f"""
import secrets, sys
draw = secrets.token_hex
secrets.token_hex = lambda num_bytes=None: {RAY_TOKEN!r} if num_bytes == 32 else draw(num_bytes)
from launcher.cli.app import main
main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Token files where tools keep them."""
    home = tmp_path / "home"
    for name in (".cache/huggingface/token", ".netrc", ".aws/credentials", ".ray/auth_token", ".config/wandb/settings"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{CANARY} {name}\n")
    return home


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("secrets") / "data")


def damage(data: Path, folder: Path) -> Path:
    """A copy in which one training sample cannot be decoded."""
    folder.mkdir()
    for name in ("train.beton", "val.beton"):
        content = bytearray((data / name).read_bytes())
        if name == "train.beton":
            with Beton(data / name) as beton:
                offset, size = int(beton.images().offsets[40]), int(beton.images().sizes[40])
            content[offset : offset + size] = bytes(size)
        (folder / name).write_bytes(content)
    return folder


def start(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    variables = {name: f"{CANARY}-{name}" for name in VARIABLES}
    environment = {**os.environ, **variables, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def files_that_tell(folder: Path) -> list[str]:
    """Those below `folder` with the canary or Ray's token in their name or content."""
    told = []
    for at, _, names in os.walk(folder):
        for path in (Path(at) / name for name in names):
            content = path.read_bytes() if path.is_file() else b""
            if CANARY in path.name or CANARY.encode() in content or RAY_TOKEN.encode() in content:
                told.append(str(path.relative_to(folder)))
    return told


@pytest.mark.parametrize("mode", ["single", "ray"])
@pytest.mark.parametrize("ending", ["well", "by a damaged sample"])
def test_no_file_of_a_run_and_nothing_printed_tells_a_secret(
    mode: str, ending: str, data: Path, home: Path, tmp_path: Path
) -> None:
    run = {**JOB["run"], "mode": mode, "workers": 2 if mode == "ray" else 1}
    job = write_job(tmp_path, data if ending == "well" else damage(data, tmp_path / "damaged"), run=run)
    paths = RunPaths(tmp_path / "run")
    ended = start(home, "run", job, "--run-dir", paths.root)
    assert ended.returncode == (0 if ending == "well" else 2), ended.stdout + ended.stderr
    assert paths.events.is_file()
    assert paths.model.is_file() == (ending == "well")
    assert files_that_tell(paths.root) == []
    assert CANARY not in ended.stdout + ended.stderr
    assert RAY_TOKEN not in ended.stdout + ended.stderr
    if ending != "well":
        assert paths.logs.is_dir() == (mode == "ray")


def test_files_of_a_run_may_be_written_by_nobody_else(data: Path, home: Path, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    previous = os.umask(0o022)
    try:
        assert start(home, "run", write_job(tmp_path, data), "--run-dir", paths.root).returncode == 0
    finally:
        os.umask(previous)
    modes = {path.relative_to(paths.root): stat.S_IMODE(path.stat().st_mode) for path in paths.root.rglob("*")}
    assert {mode for path, mode in modes.items() if (paths.root / path).is_file()} == {0o644}
    assert {mode for path, mode in modes.items() if (paths.root / path).is_dir()} == {0o755}


def test_a_canary_in_a_file_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a").write_bytes(b"\0" + RAY_TOKEN.encode())
    (tmp_path / "b").write_text(f"key {CANARY}-X")
    assert sorted(files_that_tell(tmp_path)) == ["b", "logs/a"]

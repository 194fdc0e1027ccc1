"""A damaged sample in a run: by default its name and the end, with data.skip_corrupt a substitute and a count."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffcv_datasets.beton import Beton
from launcher.event_log import read_events
from launcher.paths import RunPaths
from tests.integration.toy import JOB, final_sums, resolute, write_job

DAMAGED = (17, 100)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    """The drawn data set, with two training samples and a validation sample overwritten."""
    folder = tmp_path_factory.mktemp("damaged")
    for name, samples in (("train", DAMAGED), ("val", (3,))):
        data = bytearray((drawn / f"{name}.beton").read_bytes())
        with Beton(drawn / f"{name}.beton") as beton:
            images = beton.images()
            for sample in samples:
                offset, size = int(images.offsets[sample]), int(images.sizes[sample])
                data[offset : offset + size] = bytes(size)
        (folder / f"{name}.beton").write_bytes(data)
    return folder


@pytest.mark.parametrize("mode", ["single", "ray"])
def test_a_damaged_sample_ends_the_run_by_name(damaged: Path, tmp_path: Path, mode: str) -> None:
    job = write_job(tmp_path, damaged, run={**JOB["run"], "mode": mode, "workers": 2 if mode == "ray" else 1})
    failed = resolute("run", job, "--run-dir", tmp_path / "run")
    assert failed.returncode == 2, failed.stdout + failed.stderr
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith(f"resolute: {damaged / 'train.beton'}: sample ")
    assert last.split("sample ")[1].split()[0] in map(str, DAMAGED)
    assert "Traceback" not in failed.stderr


def test_substitutes_are_counted_and_the_same_after_a_resume(damaged: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, damaged)
    paths = [RunPaths(tmp_path / name) for name in ("whole", "resumed")]
    whole = resolute("run", job, "data.skip_corrupt=true", "--run-dir", paths[0].root)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    killed = resolute(
        "run", job, "data.skip_corrupt=true", "--run-dir", paths[1].root, failpoint="worker.lease_trained:20"
    )
    assert killed.returncode not in (0, 2), killed.stdout + killed.stderr
    assert resolute("resume", paths[1].root).returncode == 0

    assert final_sums(paths[0]) == final_sums(paths[1])
    told = [event for event in read_events(paths[0].events) if event["event"] == "samples_replaced"]
    trained = [event for event in told if any("train.beton: sample" in sentence for sentence in event["damage"])]
    assert sum(event["samples"] for event in trained) >= 5  # two in each of five epochs, less what their tails drop
    judged = [event for event in told if event not in trained]
    assert {(event["samples"], event["rank"]) for event in judged} == {(1, 0)}
    assert all("val.beton: sample 3 " in event["damage"][0] for event in judged)
    assert "damaged sample" in whole.stdout

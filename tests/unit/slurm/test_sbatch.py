"""Batch scripts, held against texts that were looked at. To make them anew: delete golden/ and run this test twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.slurm.allocation import allocate, sbatch_options
from launcher.slurm.profile import Profile
from launcher.slurm.sbatch import Batch, script
from tests.unit.sample_jobs import make_job

GOLDEN = Path(__file__).with_name("golden")
PROFILES: dict[str, dict[str, Any]] = {
    "least": {"cpus_per_node": 2, "workers_per_node": 2, "time_limit_minutes": 60},
    "everything": {
        "partition": "gpu,gpu-long",
        "account": "vision",
        "qos": "preemptible",
        "constraint": "a100|h100",
        "nodes": {"min": 1, "max": 4},
        "gpus_per_node": 8,
        "cpus_per_node": 96,
        "memory_gb_per_node": 500,
        "exclusive": True,
        "time_limit_minutes": 1440,
        "signal": "USR1",
        "signal_lead_s": 300,
        "requeue": False,
        "modules": ["cuda/12.4", "nccl"],
        "setup": ["source /shared/venv/bin/activate"],
        "environment": {"NCCL_DEBUG": "WARN", "DATA": "$SLURM_TMPDIR/data"},
        "srun_options": ["--container-image=/shared/resolute.sqsh"],
        "sbatch_options": {"reservation": "maintenance", "mail-type": "END", "nice": 100},
        "network_interface": "ib0",
    },
}


def batch(keys: dict[str, Any], runs: list[str]) -> Batch:
    profile = Profile.model_validate(keys)
    asked = allocate(make_job(run={"workers": 2}), profile)
    root = Path("/shared/runs/demo")
    options = sbatch_options(profile, asked, name="demo", run_directory=str(root))
    return Batch(root / "slurm", options, "python -m launcher.slurm.agent --lead-s 60", [root / run for run in runs])


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("least", batch(PROFILES["least"], [""])),
        ("everything", batch(PROFILES["everything"], [""])),
        ("array", batch(PROFILES["least"], ["0-seed=1", "1-seed=2 b", "2-seed=3"])),
    ],
)
def test_a_script_is_the_one_that_was_looked_at(name: str, made: Batch) -> None:
    expected = GOLDEN / f"{name}.sbatch"
    if not expected.exists():
        expected.write_text(script(made))
        pytest.fail(f"{expected} is new: look at it")
    assert script(made) == expected.read_text()


def test_a_script_is_written_where_there_is_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert script(batch(PROFILES["least"], [""])).startswith("#!/bin/bash\n")

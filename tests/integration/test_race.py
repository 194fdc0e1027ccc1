"""`resolute race`: legs of a job and its twins, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from launcher.cli.app import app
from launcher.cli.errors import FAILED
from launcher.cli.race import RaceError
from launcher.event_log import read_events
from launcher.job_file import load_job
from launcher.paths import RunPaths
from tests.integration.toy import JOB, write_job

PHASES = [{**JOB["phases"][0], "epochs": 2}, {**JOB["phases"][2], "global_batch": 32}]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_race_runs_its_legs_once_and_concludes(drawn: Path, tmp_path: Path) -> None:
    job, root = write_job(tmp_path, drawn, phases=PHASES), tmp_path / "race"
    command = ("race", job, "--equal-cost", "--seeds", 2, "--run-dir", root)
    first = invoke(*command)
    assert first.exit_code == 0
    legs = {
        f"{name}-seed{seed}": RunPaths(root / f"{name}-seed{seed}")
        for name in ("progressive", "fixed", "fixed-equal-cost")
        for seed in (3, 4)
    }
    assert {path.name for path in root.iterdir() if path.is_dir()} == legs.keys()
    sizes = {name: [phase.resolution for phase in load_job(str(leg.job)).phases] for name, leg in legs.items()}
    assert sizes["progressive-seed4"] == [12, 24]
    assert sizes["fixed-seed4"] == [24, 24]
    told = json.loads((root / "race.json").read_text())
    costs = {standing["name"]: standing["cost"] for standing in told["standings"]}
    assert costs["fixed"] == 3
    assert 1 < costs["progressive"] < 2
    assert costs["fixed-equal-cost"] == round(costs["progressive"])
    assert [len(leg["points"]) for leg in told["courses"]] == [3, 3, 2, 3, 3, 2]
    assert "12 -> 24" in first.output

    again = invoke(*command)
    assert again.output.count("is finished already") == 6
    assert json.loads((root / "race.json").read_text()) == told
    for leg in legs.values():
        assert [event["event"] for event in read_events(leg.events)].count("attempt_started") == 1


def test_the_courses_are_drawn(drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    invoke("race", write_job(tmp_path, drawn, phases=PHASES), "--run-dir", tmp_path / "race")
    assert (tmp_path / "race" / "race.png").read_bytes().startswith(b"\x89PNG")


def test_a_leg_that_diverges_is_told_and_the_others_race_on(drawn: Path, tmp_path: Path) -> None:
    # Norms that are held still do not bear such a rate; the twin, whose size never changes, holds none.
    phases = [PHASES[0], {**PHASES[1], "epochs": 2, "norm": {"kind": "freeze", "epochs": 2}}]
    job = write_job(tmp_path, drawn, phases=phases, learning_rate={"base": 5.0, "base_batch": 32})
    result = invoke("race", job, "--run-dir", tmp_path / "race")
    assert result.exit_code == FAILED
    told = json.loads((tmp_path / "race" / "race.json").read_text())
    assert list(told["failed"]) == ["progressive-seed3"]
    assert "of epoch 2 on rank 0" in told["failed"]["progressive-seed3"]
    assert [standing["name"] for standing in told["standings"]] == ["fixed"]
    assert "progressive-seed3 failed: the loss is nan" in result.output.replace("inf", "nan")


def test_a_race_whose_legs_all_diverge_comes_to_an_end(drawn: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, drawn, phases=PHASES, learning_rate={"base": 1e20, "base_batch": 32})
    result = invoke("race", job, "--run-dir", tmp_path / "race")
    assert result.exit_code == FAILED
    assert len(json.loads((tmp_path / "race" / "race.json").read_text())["failed"]) == 2


def test_a_job_of_one_size_or_without_validation_has_nothing_to_race(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(RaceError, match="is its own twin"):
        invoke("race", write_job(tmp_path, drawn, phases=PHASES[:1]))
    with pytest.raises(RaceError, match=r"give data\.val"):
        invoke("race", write_job(tmp_path, drawn), "data.val=null")

"""What befalls a run under Ray: signals to all of Ray, a worker that hangs, Ray's own death, nodes that come and go."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.config import JobConfig
from launcher.coordinator import Done
from launcher.executors.private_ray import joined_node
from launcher.signals import STOP_SIGNALS
from tests.faults.nursery import Nursery
from tests.faults.ray_runs import RayRunProcess, nodes_run, resolute_run, wait_until
from tests.faults.tiny_run import JOB, TinyRun, make_job

STALL_TIMEOUT_S = 20.0
PATIENCE_S = 300.0


def long_job(data: Path, *, epochs: int, workers: int | dict[str, int]) -> JobConfig:
    run = {**JOB["run"], "workers": workers, "stall_timeout_s": STALL_TIMEOUT_S}
    phase = {"epochs": epochs, "resolution": 12, "global_batch": 12, "crop_scale": [0.5, 1.0]}
    sparing: dict[str, Any] = {"evaluation": {"every_epochs": 100}, "checkpoint": {"every_epochs": 5}}
    return make_job(data, workers=workers, phases=[phase], run=run, **sparing)


def written(job: JobConfig, folder: Path) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_none=True)))
    return path


@pytest.mark.timeout(900)
def test_a_run_survives_what_befalls_ray_and_ends_with_identical_weights(
    nursery: Nursery, tiny_data: Path, tmp_path: Path
) -> None:
    job = long_job(tiny_data, epochs=150, workers=2)
    whole, harried = TinyRun(tmp_path / "whole", job), TinyRun(tmp_path / "harried", job)
    outcome = nursery.run(replace(whole.attempt(), deadline_s=PATIENCE_S))
    assert outcome.end == Done(), outcome.error
    harried.folder.mkdir()
    command = resolute_run(written(job, tmp_path), harried.paths.root)
    with RayRunProcess(command, harried.paths.root, output=tmp_path / "output") as run:
        run.await_events("epoch_trained", 1)
        processes = run.ray_processes()
        for process in processes:
            for number in STOP_SIGNALS:
                process.send_signal(number)
        run.await_events("epoch_trained", 10)
        assert run.ray_processes() == processes
        assert not run.events("worker_lost")

        hanging = run.ray_processes("RayTrainWorker")[-1]
        hanging.send_signal(signal.SIGSTOP)
        lost = run.await_events("worker_lost", 1)
        assert f"(process {hanging.pid} on {lost['host']})" in lost["what"]
        assert f"no sign of life for {STALL_TIMEOUT_S:g} s" in lost["what"]
        assert not hanging.is_running()

        run.await_events("workers_ready", 2)
        (raylet,) = run.ray_processes("raylet/raylet")
        raylet.kill()
        assert run.await_events("worker_lost", 2)["what"] == "a process of Ray itself has died"

        assert run.await_end() == 0, run.output
        assert len(run.events("attempt_started")) == 3
        wait_until(lambda: not run.left_behind(), "nothing is left behind")
    assert harried.sums() == whole.sums()


@pytest.mark.timeout(900)
def test_workers_follow_the_nodes_that_come_and_go_and_too_few_of_them_stop_the_run(
    tiny_data: Path, tmp_path: Path
) -> None:
    job = written(long_job(tiny_data, epochs=5000, workers={"min": 1, "max": 2}), tmp_path)
    with RayRunProcess(nodes_run(job, tmp_path / "run", cpus=1), tmp_path / "run", output=tmp_path / "output") as run:
        assert run.await_events("workers_ready", 1)["world_size"] == 1
        address, secret = json.loads(run.output.splitlines()[0])
        with joined_node(
            address, secret, host="127.0.0.6", num_cpus=1, num_gpus=0, saved_logs=tmp_path / "node"
        ) as node:
            assert run.await_events("workers_ready", 2)["world_size"] == 2
            assert not run.events("worker_lost")
            node.kill()
            node.wait()
        lost = run.await_events("worker_lost", 1)
        assert "is gone" in lost["what"]
        assert run.await_events("workers_ready", 3)["world_size"] == 1
        run.driver.send_signal(signal.SIGTERM)
        assert run.await_end() == 3, run.output
        assert [event["world_size"] for event in run.events("attempt_started")] == [2, 1, 2, 1]

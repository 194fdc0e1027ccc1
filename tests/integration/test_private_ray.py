"""A private Ray beside a foreign one: closed to others, deaf to signals, gone with its driver, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.signals import STOP_SIGNALS

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("private_ray_driver.py")
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
DEADLINE_S = 120
SAVED_LOGS = "logs"


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


def knock(address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Ask the Ray at `address` whether it is well, as a process with this environment."""
    check = [*RAY, "health-check", "--address", address]
    return subprocess.run(check, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)


@dataclass(frozen=True)
class Foreign:
    """An ordinary Ray of the same user's, and an environment that points at it."""

    address: str
    environment: dict[str, str]
    home: Path


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory:
        home = Path(directory, "home")
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"HOME": str(home), "RAY_TMPDIR": directory, "RAY_AUTH_MODE": "disabled"}
        environment |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        start = [*RAY, "start", "--head", "--block", "--port=0", "--num-cpus=1", "--include-dashboard=false"]
        log = subprocess.DEVNULL
        process = subprocess.Popen(
            [*start, "--dashboard-agent-listen-port=0"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            pointer = Path(directory, "ray", "ray_current_cluster")
            wait_until(lambda: pointer.is_file() and pointer.read_text(), "the foreign Ray is up")
            address = pointer.read_text()
            environment |= {"RAY_ADDRESS": address, "RAY_NAMESPACE": "theirs", "PYTHONPATH": str(ROOT)}
            yield Foreign(address, environment, home)
            assert knock(address, environment).returncode == 0
        finally:
            process.terminate()
            process.wait()


class Driver:
    """A driver in a process group of its own, as a shell would start it."""

    def __init__(self, directory: Path, environment: dict[str, str]):
        self.saved_logs = directory / SAVED_LOGS
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(self.saved_logs)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.keeper: psutil.Process
        self.leader: psutil.Process
        self.ray: list[psutil.Process] = []

    def comes_up(self) -> None:
        assert self.says() == "up"
        self.keeper, self.leader = psutil.Process(self.process.pid).children()
        assert "ray_keeper.py" in " ".join(self.keeper.cmdline())
        self.ray = [process for process in psutil.process_iter() if self._is_rays(process)]
        assert len(self.ray) >= 4

    def _is_rays(self, process: psutil.Process) -> bool:
        with contextlib.suppress(ProcessLookupError):
            return process.pid != self.keeper.pid and os.getsid(process.pid) == self.keeper.pid
        return False

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def told(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def probe(self) -> dict[str, Any]:
        self.told("probe")
        facts: dict[str, Any] = json.loads(self.says())
        return facts

    def leave(self) -> int:
        self.told("leave")
        return self.process.wait(DEADLINE_S)

    def left_behind(self) -> list[psutil.Process]:
        return [process for process in (self.keeper, self.leader, *self.ray) if process.is_running()]


@contextlib.contextmanager
def driver(directory: Path, environment: dict[str, str]) -> Iterator[Driver]:
    driver = Driver(directory, environment)
    try:
        yield driver
    finally:
        driver.process.kill()
        driver.process.communicate()


def listening_addresses(process: psutil.Process) -> set[str]:
    connections = process.net_connections("inet")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_private_ray_is_closed_to_others_deaf_to_signals_and_leaves_nothing(foreign: Foreign, tmp_path: Path) -> None:
    with driver(tmp_path, foreign.environment) as ours:
        ours.comes_up()
        facts = ours.probe()
        assert facts["address"] != foreign.address
        assert facts["room"] == 2
        worker_sees = facts["worker_environment"]
        assert worker_sees["RAY_ADDRESS"] == facts["address"]
        assert not {"RAY_NAMESPACE", "RAY_TMPDIR"} & set(worker_sees)

        temp_dir = Path(facts["temp_dir"])
        token = temp_dir / "token"
        assert stat.S_IMODE(temp_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert not any(token.read_text() in log.read_text(errors="replace") for log in temp_dir.rglob("*.log"))
        assert not list(foreign.home.iterdir())

        everyone = [psutil.Process(ours.process.pid), ours.leader, *ours.ray]
        sockets = set().union(*map(listening_addresses, everyone))
        assert sockets == {"127.0.0.1", "::ffff:127.0.0.1"}
        # Ray would take the host's outer address instead of 127.0.0.1, where nobody listens.
        stranger = foreign.environment | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        for credentials in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a guess"}):
            refusal = knock(facts["address"], stranger | credentials)
            assert refusal.returncode != 0
            assert "authentication" in refusal.stderr

        os.killpg(ours.process.pid, signal.SIGINT)
        assert ours.says() == "interrupted"
        for process in (ours.keeper, ours.leader, *ours.ray):
            for number in STOP_SIGNALS:
                process.send_signal(number)
        assert ours.probe() == facts
        assert ours.left_behind() == [ours.keeper, ours.leader, *ours.ray]

        assert ours.leave() == 0
        assert not ours.left_behind()
        assert not temp_dir.exists()
        assert not ours.saved_logs.exists()


def test_ray_of_a_killed_driver_ends_alone_and_that_of_a_failed_one_ends_too(foreign: Foreign, tmp_path: Path) -> None:
    with (
        driver(tmp_path / "one", foreign.environment) as one,
        driver(tmp_path / "two", foreign.environment) as two,
    ):
        one.comes_up()
        two.comes_up()
        temp_dirs = [Path(each.probe()["temp_dir"]) for each in (one, two)]

        one.process.kill()
        wait_until(lambda: not one.left_behind(), "the keeper ends the killed driver's Ray")
        assert two.probe()["worker_environment"]
        assert two.left_behind() == [two.keeper, two.leader, *two.ray]

        two.told("crash")
        assert two.process.wait(DEADLINE_S) == 1
        assert not two.left_behind()

        for each in (one, two):
            assert any("a worker's last words" in log.read_text() for log in each.saved_logs.glob("worker-*.err"))
        assert not any(temp_dir.exists() for temp_dir in temp_dirs)


def test_ray_that_does_not_come_up_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from launcher.executors.private_ray import private_ray\n"
        f"with private_ray(num_cpus=-1, num_gpus=0, saved_logs=Path('{tmp_path}/logs')): pass"
    )
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        environment = os.environ | {"TMPDIR": directory}
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert run.returncode == 1
        assert "NotUpError: Ray did not come up" in run.stderr
        # torch makes itself a folder there, if some process comes to import it before Ray has failed.
        assert {entry.name.partition("_")[0] for entry in Path(directory).iterdir()} <= {"torchinductor"}

"""Speaks to a run's Ray for the driver, its parent: a program that answers one question after the other."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from pathlib import Path

import ray
import ray.train  # Takes long: while Ray comes up.

from launcher.attempts import Loss
from launcher.coordinator import Done, Stop
from launcher.executors.ray_attempt import RayAttempt
from launcher.executors.ray_keeper import end_with_parent
from launcher.executors.ray_nodes import free_nodes, nodes_at_hand, room_for_workers
from launcher.executors.ray_pipe import Driver, RayLostError
from launcher.run_setup import RunSetup

_NAMESPACE = "resolute"


def main() -> None:
    """Answer until the driver is gone."""
    end_with_parent()
    connection = Connection(int(sys.argv[1]))
    leader = Leader(Driver(connection), temp_dir=Path(sys.argv[2]))
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        if question != "order":  # One that came as the attempt ended is the driver's own to obey.
            connection.send(_answer(leader, question, arguments))


def _answer(leader: Leader, question: str, arguments: tuple[object, ...]) -> tuple[str, object]:
    try:
        return "answer", getattr(leader, question)(*arguments)
    except RayLostError as error:
        return "error", error
    except Exception as error:
        return "error", RayLostError(f"Ray failed at {question}: {type(error).__name__}: {error}")


class Leader:
    """What the driver can ask for, by the methods' names."""

    def __init__(self, driver: Driver, *, temp_dir: Path):
        self._driver = driver
        self._temp_dir = temp_dir
        self._session = 0

    def connect(self, address: str, session: int) -> None:
        """To the Ray at `address`, whose processes on this host are of that session."""
        self._session = session
        environment = {"env_vars": {"RAY_ADDRESS": address}}
        ray.init(address, namespace=_NAMESPACE, log_to_driver=False, runtime_env=environment)

    def room(self, use_gpu: bool) -> int:
        """For how many workers there is room, now that those of earlier attempts have ended."""
        free_nodes()
        return room_for_workers(nodes_at_hand(), use_gpu=use_gpu)

    def attempt(self, setup: RunSetup, meeting_file: Path, use_gpu: bool, logs: Path) -> Stop | Done | Loss | Exception:
        """Carry the setup out, with as many workers as its plan has, as far as it goes."""
        attempt = RayAttempt(
            setup,
            self._driver,
            session=self._session,
            temp_dir=self._temp_dir,
            meeting_file=meeting_file,
            use_gpu=use_gpu,
            logs=logs,
        )
        return attempt.carry_out()

"""A driver for test_private_ray.py: brings a private Ray up, then does what each line of stdin says.

`probe`: one line of JSON about Ray and what a worker sees. `leave`: leave the context. Anything else: raise.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from launcher.executors.private_ray import private_ray
from launcher.executors.ray_environment import LOOPBACK, ray_environment


class Witness:
    """An actor."""

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    def speak(self) -> None:
        print("a worker's last words", file=sys.stderr, flush=True)


def main(saved_logs: Path) -> None:
    signal.signal(signal.SIGINT, lambda number, frame: print("interrupted", flush=True))
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    with private_ray(num_cpus=2, num_gpus=0, saved_logs=saved_logs) as home:
        assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
        assert "ray" not in sys.modules
        room = home.ask("room", False)
        ray = connect(home.address, home.token)
        witness = ray.remote(num_cpus=0)(Witness).remote()
        ray.get(witness.speak.remote())
        print("up", flush=True)
        while (line := sys.stdin.readline()) != "leave\n":
            assert line == "probe\n", line
            facts = {
                "address": home.address,
                "temp_dir": str(home.temp_dir),
                "worker_environment": ray.get(witness.environment.remote()),
                "room": room,
            }
            print(json.dumps(facts), flush=True)


def connect(address: str, token: Path) -> Any:
    """Be a driver of this Ray, beside the leader, to start an actor of the test's own."""
    os.environ.update(ray_environment(token, host=LOOPBACK, settings={}))
    import ray

    ray.init(address, log_to_driver=False, runtime_env={"env_vars": {"RAY_ADDRESS": address}})
    return ray


if __name__ == "__main__":
    main(Path(sys.argv[1]))

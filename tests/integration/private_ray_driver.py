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
from launcher.executors.ray_environment import ray_environment


class Witness:
    """An actor."""

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    def speak(self) -> None:
        print("a worker's last words", file=sys.stderr, flush=True)


def main(saved_logs: Path) -> None:
    signal.signal(signal.SIGINT, lambda number, frame: print("interrupted", flush=True))
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with (
        ray_environment() as environment,
        private_ray(environment, num_cpus=2, num_gpus=0, saved_logs=saved_logs) as home,
    ):
        assert signal.getsignal(signal.SIGTERM) is on_sigterm
        ray: Any = sys.modules["ray"]
        witness = ray.remote(num_cpus=0)(Witness).remote()
        ray.get(witness.speak.remote())
        print("up", flush=True)
        while (line := sys.stdin.readline()) != "leave\n":
            assert line == "probe\n", line
            facts = {
                "address": home.address,
                "temp_dir": str(home.temp_dir),
                "worker_environment": ray.get(witness.environment.remote()),
                "num_cpus": ray.cluster_resources()["CPU"],
            }
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A driver whose Ray other nodes of this machine can join: `JOB ROOT HOST CPUS`; prints Ray's address and secret.

`resolute run` keeps to loopback, where no node joins; to Ray 127.0.0.2 and the like are other hosts.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.coordinator import Done
from launcher.events import Event, Progress
from launcher.executors.local_ray import train_settings
from launcher.executors.private_ray import PrivateRay, private_ray
from launcher.executors.ray_run import RayRun
from launcher.job_file import load_job
from launcher.run_directory import open_run_directory
from launcher.run_setup import attempt_started, check_job, prepare_run
from launcher.signals import stop_on_signal


def main(job_file: str, root: Path, host: str, num_cpus: int) -> int:
    job, plan, data = check_job(load_job(job_file), source=job_file)
    stop_reasons: list[str] = []
    with open_run_directory(root) as directory, stop_on_signal(stop_reasons.append):
        setup = prepare_run(job, plan, data, paths=directory.paths, accept_changes=False, claim=directory.claim)

        def on_event(event: Event) -> None:
            if not isinstance(event, Progress):
                directory.events.append(event.to_json())

        @contextlib.contextmanager
        def bring_up() -> Iterator[PrivateRay]:
            with private_ray(
                num_cpus=num_cpus,
                num_gpus=0,
                saved_logs=directory.paths.logs / "ray",
                host=host,
                settings=train_settings(stall_timeout_s=job.run.stall_timeout_s, interface="lo"),
            ) as ray:
                print(json.dumps([ray.address, ray.token.read_text()]), flush=True)
                yield ray

        on_event(attempt_started(setup))
        run = RayRun(
            setup,
            use_gpu=False,
            logs=directory.paths.logs / "ray",
            meeting_dir=directory.paths.root,
            on_event=on_event,
            stop_reasons=stop_reasons,
        )
        return 0 if isinstance(run.carry_out(bring_up), Done) else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))

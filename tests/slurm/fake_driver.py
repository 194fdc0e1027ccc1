"""A driver without torch: owns its run directory, "trains" samples in order, saves when asked to, and can misbehave.

    python -m tests.slurm.fake_driver RUN_DIR --end-once FILE [--samples 100] [--step-s 0.05] [--teardown-s 0] ...

Its state is a hash over the samples in their order: equal at the end for any number of interruptions, unless one was
lost or repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from launcher.durable import write_atomically
from launcher.events import CheckpointSaved, RunFinished, RunStopped, StopRequested
from launcher.paths import CheckpointName
from launcher.plan import Position
from launcher.run_directory import RunDirectory, open_run_directory
from launcher.signals import stop_on_signal
from launcher.slurm.records import newest_checkpoint
from launcher.slurm.time_left import job_ends_at

STATE = "state.json"
FINAL = "final.json"


def train(directory: RunDirectory, arguments: argparse.Namespace) -> int:
    """Go on from the newest checkpoint; the exit code."""
    paths, events = directory.paths, directory.events
    newest = newest_checkpoint(paths.root)
    samples, digest = 0, ""
    if newest:
        saved = json.loads((paths.checkpoints / newest / STATE).read_text())
        samples, digest = saved["samples"], saved["digest"]
    reasons: list[str] = []
    with stop_on_signal(reasons.append):
        while arguments.ready_once and not arguments.ready_once.exists():
            time.sleep(0.1)
        events.append({"event": "workers_ready", "job_ends_at": job_ends_at()})
        while samples < arguments.samples and not reasons:
            time.sleep(arguments.step_s)
            if samples == arguments.samples - 1 and not arguments.end_once.exists():
                continue
            digest = hashlib.sha256(f"{digest} {samples}".encode()).hexdigest()
            samples += 1
        position = Position(0, samples)
        if reasons:
            events.append(StopRequested(reasons[0]).to_json())
            while arguments.save_once and not arguments.save_once.exists():
                time.sleep(0.1)
        folder = paths.checkpoint(CheckpointName(position))
        if not folder.exists():
            draft = folder.with_name(f".tmp-{folder.name}")
            draft.mkdir(parents=True)
            write_atomically(draft / STATE, json.dumps({"samples": samples, "digest": digest}))
            draft.rename(folder)
        saved_event = CheckpointSaved(
            **asdict(position), phase_boundary=False, path=folder.name, num_bytes=0, seconds=0.0, stall_s=0.0
        )
        events.append(saved_event.to_json())
        if samples < arguments.samples:
            time.sleep(arguments.teardown_s)
            events.append(RunStopped(reason=reasons[0], epoch=0, samples_done=samples).to_json())
            return 3
        write_atomically(paths.root / FINAL, json.dumps({"samples": samples, "digest": digest}))
        events.append(RunFinished(model=FINAL, seconds=0.0).to_json())
        return 0


def expected_digest(samples: int) -> str:
    """Of a run that nobody interrupted."""
    digest = ""
    for sample in range(samples):
        digest = hashlib.sha256(f"{digest} {sample}".encode()).hexdigest()
    return digest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_directory", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--step-s", type=float, default=0.05)
    parser.add_argument("--end-once", type=Path, required=True, help="the last sample waits for this file")
    parser.add_argument("--ready-once", type=Path, help="the start waits for this file, and heeds no stop meanwhile")
    parser.add_argument("--save-once", type=Path, help="the checkpoint of a stop waits for this file")
    parser.add_argument("--teardown-s", type=float, default=0.0, help="from the checkpoint of a stop to the end")
    parser.add_argument("--exit-code", type=int, help="do nothing but end so")
    arguments = parser.parse_args()
    if arguments.exit_code is not None:
        sys.exit(arguments.exit_code)
    with open_run_directory(arguments.run_directory) as directory:
        code = train(directory, arguments)
    sys.exit(code)


if __name__ == "__main__":
    main()

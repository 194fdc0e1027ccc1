"""A worker's work with a ledger kept beside it, and slow until told otherwise, so that something can happen to it."""

from __future__ import annotations

import functools
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.plan import Plan
from launcher.run_setup import RunSetup
from tests.faults.attempts import Traces
from tests.faults.ledger import keep_ledger

FOLDER = "TRACES"
"""By this environment variable a run's workers learn where to leave their traces."""
_REST_S = 0.6
"""After each step: minutes for a run. What is trained does not change by it."""
Work = Callable[[RunSetup, Any, Path], Any]


class WorkerTraces(Traces):
    """Those of one attempt under Ray Train; its folder is named as the file through which its ranks meet."""

    @property
    def plan(self) -> Plan:
        plan: Plan = pickle.loads((self.folder / "plan.pickle").read_bytes())
        return plan

    @property
    def num_steps(self) -> int:
        """Trained so far, by rank 0."""
        ledger = self.ledger(0)
        return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

    @property
    def nodes(self) -> list[str]:
        """On which of Slurm's each rank runs, in the order of ranks."""
        files = sorted(self.folder.glob("rank*.node"), key=lambda path: int(path.stem.removeprefix("rank")))
        return [path.read_text() for path in files]

    def note_node(self, rank: int) -> None:
        (self.folder / f"rank{rank}.node").write_text(os.environ["SLURMD_NODENAME"])

    @property
    def first_step(self) -> Path:
        """As old as the first step's end."""
        return self.folder / "first_step"


def traced(work: Work) -> Work:
    """The same work."""

    @functools.wraps(work)
    def traced_work(setup: RunSetup, post: Any, meeting_file: Path) -> Any:
        from ray.train import get_context

        context: Any = get_context()
        rank = context.get_world_rank()
        traces = WorkerTraces(Path(os.environ[FOLDER]) / meeting_file.name)
        traces.folder.mkdir(parents=True, exist_ok=True)
        traces.note_node(rank)
        if rank == 0:
            (traces.folder / "plan.pickle").write_bytes(pickle.dumps(setup.plan))
            traces.begin(setup.start, setup.plan.world_size)
        keep_ledger(traces.ledger(rank))
        _pace(traces, rank)
        return work(setup, post, meeting_file)

    return traced_work


def hurry_file(folder: Path) -> Path:
    """Once it exists, the workers whose traces lie in `folder` rest no more."""
    return folder.with_name("hurry")


def _pace(traces: WorkerTraces, rank: int) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    hurried = hurry_file(traces.folder.parent)

    def trained(*_: object) -> None:
        if traces.ledger(rank).stat().st_size:  # else a step that is only tried
            if rank == 0 and not traces.first_step.exists():
                traces.first_step.touch()
            time.sleep(0.0 if hurried.exists() else _REST_S)

    register_optimizer_step_post_hook(trained)


def read_traces(folder: Path) -> list[WorkerTraces]:
    """Of all attempts that began, in their order."""
    attempts = [WorkerTraces(entry) for entry in folder.iterdir()] if folder.is_dir() else []
    begun = [attempt for attempt in attempts if attempt.beginning.exists()]
    return sorted(begun, key=lambda attempt: attempt.beginning.stat().st_mtime_ns)

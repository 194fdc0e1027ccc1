"""Every file name of a run, and those of checkpoints and temporary files. Pure: touches no disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from launcher.plan import Position

_TEMPORARY_PREFIX = ".tmp-"
_SAFETENSORS_TEMPORARY = re.compile(r"\.tmp[A-Za-z0-9]{6}")
"""What safetensors (0.8) writes to before it renames; a killed process leaves it."""
_CLAIM_NAME = re.compile(r"owner-([0-9]{5,})\.json")
_CHECKPOINT_NAME = re.compile(r"e([0-9]{5,})-s([0-9]{9,})(?:-r([0-9]{3,}))?")


@dataclass(frozen=True)
class RunPaths:
    """Where everything of the run in directory `root` lies."""

    root: Path

    @property
    def job(self) -> Path:
        """The resolved job: recipe, overrides and defaults in one file."""
        return self.root / "job.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def model(self) -> Path:
        """The final weights."""
        return self.root / "model.safetensors"

    @property
    def evaluation(self) -> Path:
        """The final weights' accuracy at several sizes; a curve of it lies beside."""
        return self.root / "evaluation.json"

    @property
    def fixres(self) -> Path:
        """Accuracy before and after this run, if it fits another run's model to a size."""
        return self.root / "fixres.json"

    def claim(self, number: int) -> Path:
        """What the run's start of that number owns it by. The first file of a run directory; tells it from others."""
        return self.root / _claim_name(number)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def checkpoint(self, name: CheckpointName) -> Path:
        return self.checkpoints / str(name)


@dataclass(frozen=True, order=True)
class CheckpointName:
    """The directory name of a checkpoint: e00005-s000000000, after 5 epochs. Sorts as positions do.

    A resumed run may come past a position that an earlier attempt had saved. The later checkpoint then takes
    the next replay number (e00005-s000000000-r001), so that saving never has to remove or overwrite anything.
    """

    position: Position
    replay: int = 0

    def __str__(self) -> str:
        place = f"e{self.position.epoch:05d}-s{self.position.samples_done:09d}"
        return f"{place}-r{self.replay:03d}" if self.replay else place

    @classmethod
    def parse(cls, text: str) -> CheckpointName | None:
        """The inverse of `str`; None for any other text."""
        match = _CHECKPOINT_NAME.fullmatch(text)
        if match is None:
            return None
        epoch, samples_done, replay = (int(digits or 0) for digits in match.groups())
        name = cls(Position(epoch, samples_done), replay)
        return name if str(name) == text else None


def claim_number(name: str) -> int | None:
    """owner-00003.json -> 3; None for any other name."""
    match = _CLAIM_NAME.fullmatch(name)
    number = int(match[1]) if match else 0
    return number if number and name == _claim_name(number) else None


def _claim_name(number: int) -> str:
    return f"owner-{number:05d}.json"


def temporary(path: Path, *, pid: int) -> Path:
    """Where process `pid` prepares `path`: hidden, and beside it, so that a rename can put it in place."""
    return path.with_name(f"{_TEMPORARY_PREFIX}{pid}-{path.name}")


def is_temporary(name: str) -> bool:
    return name.startswith(_TEMPORARY_PREFIX) or _SAFETENSORS_TEMPORARY.fullmatch(name) is not None

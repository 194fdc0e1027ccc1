"""A trainer's state to a checkpoint and back: what belongs to it, who writes it, and in which order it is restored.

Training waits only while its state is copied aside; a thread writes, flushes and renames meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from launcher import failpoints
from launcher.checkpoint import Parts, load, prune, require_like, save
from launcher.config import Checkpoint
from launcher.heartbeat import Claim
from launcher.manifest import CheckpointError, CheckpointInfo, verify
from launcher.paths import RunPaths
from launcher.plan import Plan, Position
from launcher.trainer import SpanResult, Trainer
from launcher.training_state import load_optimizer_tensors, optimizer_tensors, restore_rng, rng_tensors


@dataclass(frozen=True)
class Best:
    """The highest top-1 accuracy among the run's checkpoints, and where."""

    top1: float
    position: Position


@dataclass(frozen=True)
class Standing:
    """What a run knows of itself besides its weights."""

    epoch: SpanResult = field(default_factory=SpanResult)
    """Of the epoch under way, over all attempts; the loss of this rank's samples."""
    last_top1: float | None = None
    evaluated_epoch: int | None = None
    """The last epoch at whose end the accuracy was measured."""
    best: Best | None = None

    def at(self, position: Position) -> Standing:
        """As the checkpoint of `position` tells it: the best one may be this."""
        if self.last_top1 is None or self.evaluated_epoch is None or position != Position(self.evaluated_epoch + 1):
            return self
        if self.best is not None and self.best.top1 >= self.last_top1:
            return self
        return replace(self, best=Best(self.last_top1, position))


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has been committed. `stall_s` is how long training stood still for it."""

    info: CheckpointInfo
    seconds: float
    stall_s: float


class Saver:
    """One rank's side of saving: every rank hands in its part, rank 0 writes."""

    def __init__(self, paths: RunPaths, plan: Plan, cadence: Checkpoint, *, rank: int, claim: Claim | None = None):
        """`claim` is the run directory's owner's, and nothing is committed once it is lost."""
        self._paths = paths
        self._plan = plan
        self._cadence = cadence
        self._rank = rank
        self._claim = claim
        self._copies = HostCopies()
        self._pending: Future[Saved] | None = None

    def save(self, trainer: Trainer, position: Position, standing: Standing) -> Saved | None:
        """Begin to commit the state at `position`; a collective. The checkpoint before, if nobody has taken it yet.

        Weights and optimizer are equal on all ranks, and buffers are made so; each rank's random numbers are kept.
        Nothing is written before every rank has handed in its part.

        Raises what the checkpoint before failed with.
        """
        began = time.perf_counter()
        before = self.take_saved(wait=True)
        trainer.synchronise_buffers()
        failpoints.hit("saving.before_gather", rank=self._rank)
        handed_in = _gather(_RankPart(rng_tensors(), standing.epoch.loss_sum), self._rank, self._plan.world_size)
        failpoints.hit("saving.gathered", rank=self._rank)
        if self._rank == 0:
            loss_sum = sum(part.loss_sum for part in handed_in)
            facts = self._facts(trainer, replace(standing, epoch=replace(standing.epoch, loss_sum=loss_sum)))
            parts = self._copies.take(_parts(trainer, handed_in))
            self._pending = self._write_aside(position, parts, facts, stall_s=time.perf_counter() - began)
        return before

    def take_saved(self, *, wait: bool = False) -> Saved | None:
        """The checkpoint that was committed since the last call. Raises what it failed with."""
        if self._pending is None or not (wait or self._pending.done()):
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def _facts(self, trainer: Trainer, standing: Standing) -> dict[str, Any]:
        facts = {
            "plan_fingerprint": self._plan.fingerprint,
            "world_size": self._plan.world_size,
            "loss_scaler": trainer.scaler.state_dict(),
            "standing": asdict(standing),
        }
        return facts if self._claim is None else {**facts, "run": self._claim.run}

    def _write_aside(self, position: Position, parts: Parts, facts: dict[str, Any], *, stall_s: float) -> Future[Saved]:
        """Commit in a thread that keeps no process alive: whoever ends without waiting ends at once."""
        future: Future[Saved] = Future()

        def write() -> None:
            began = time.perf_counter()
            try:
                if self._claim is not None:
                    self._claim.assert_held()
                info = save(self._paths.checkpoints, position, parts, facts)
                self._prune(facts)
                future.set_result(Saved(info, time.perf_counter() - began, stall_s))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=write, name="checkpoint", daemon=True).start()
        return future

    def _prune(self, facts: dict[str, Any]) -> None:
        keep = set(self._plan.phase_boundaries())
        best = facts["standing"]["best"]
        if best is not None and self._cadence.keep_best:
            keep.add(Position(**best["position"]))
        prune(self._paths.checkpoints, keep=keep, keep_last=self._cadence.keep_last)

    def settle(self) -> None:
        """Let what was begun come to its end, whatever that is: another error is being told already."""
        if self._pending is not None:
            wait([self._pending])

    def restore(self, trainer: Trainer, path: Path) -> Standing:
        """Bring a trainer to the state in the checkpoint `path`, and tell how the run stands.

        Order matters: 1 weights and buffers, 2 optimizer, which refers to the weights by name, 3 average, 4 loss scale,
        5 random numbers last, as building anything before may have drawn some.
        """
        parts, facts = load(verify(path))
        with _naming_misfit(path):
            require_like(trainer.model.state_dict(), parts["model"])
            trainer.model.load_state_dict(parts["model"])
            load_optimizer_tensors(trainer.model, trainer.optimizer, parts["optimizer"])
            if trainer.average is not None:
                require_like(trainer.average.state_dict(), parts["average"])
                trainer.average.load_state_dict(parts["average"])
            trainer.scaler.load_state_dict(facts["loss_scaler"])
            prefix = f"rank{self._rank}/"
            own = {name.removeprefix(prefix): t for name, t in parts["rng"].items() if name.startswith(prefix)}
            if own:  # A rank that the earlier attempt did not have starts from the job's seed.
                restore_rng(own)
            return _standing(facts["standing"], rank=self._rank)


@contextmanager
def _naming_misfit(path: Path) -> Iterator[None]:
    """Turns what a checkpoint of another job, or of a stranger who knows the seal, makes go wrong into a sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(
            f"{path.name} does not fit this job ({type(error).__name__}: {error}): another model saved it, or somebody "
            f"changed it; move it away to go on from the one before"
        ) from error


class HostCopies:
    """Copies of tensors in the host's memory, which is allocated once and used again; pinned for those of a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def take(self, parts: Parts) -> Parts:
        """Copy all tensors, into the memory of the last call's copies; names tied to one tensor stay tied."""
        copied: dict[object, Tensor] = {}
        copies: Parts = {part: {} for part in parts}
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
                if tensor.numel() == 0 or memory not in copied:
                    copied[memory] = self._buffer((part, name), tensor).copy_(tensor, non_blocking=True)
                copies[part][name] = copied[memory]
        if any(tensor.is_cuda for tensors in parts.values() for tensor in tensors.values()):
            torch.cuda.synchronize()
        return copies

    def _buffer(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(key)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
            self._buffers[key] = buffer
        return buffer


@dataclass(frozen=True)
class _RankPart:
    """What no other rank can tell."""

    rng: dict[str, Tensor]
    loss_sum: float


def _gather(own: _RankPart, rank: int, world_size: int) -> list[_RankPart]:
    """Every rank's part, in their order, on rank 0."""
    if world_size == 1:
        return [own]
    gathered: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(own, gathered, dst=0)
    return gathered or []


def _parts(trainer: Trainer, handed_in: list[_RankPart]) -> Parts:
    parts = {
        "model": trainer.model.state_dict(),
        "optimizer": optimizer_tensors(trainer.model, trainer.optimizer),
        "rng": {f"rank{r}/{name}": tensor for r, part in enumerate(handed_in) for name, tensor in part.rng.items()},
    }
    return parts if trainer.average is None else {**parts, "average": trainer.average.state_dict()}


def _standing(entries: dict[str, Any], *, rank: int) -> Standing:
    """From JSON. The loss so far is counted by rank 0, whatever the number of ranks that it came from."""
    epoch = SpanResult(**entries["epoch"])
    best = entries["best"]
    return Standing(
        epoch=epoch if rank == 0 else replace(epoch, loss_sum=0.0),
        last_top1=entries["last_top1"],
        evaluated_epoch=entries["evaluated_epoch"],
        best=Best(best["top1"], Position(**best["position"])) if best else None,
    )

"""A trainer's state to a checkpoint and back: what belongs to it, who writes it, and in which order it is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from launcher.checkpoint import load, prune, save
from launcher.config import Checkpoint
from launcher.manifest import CheckpointInfo, verify
from launcher.paths import RunPaths
from launcher.plan import Plan, Position
from launcher.trainer import Trainer
from launcher.training_state import load_optimizer_tensors, optimizer_tensors, restore_rng, rng_tensors


class Saver:
    """One rank's side of saving: every rank takes part, rank 0 writes."""

    def __init__(self, paths: RunPaths, plan: Plan, cadence: Checkpoint, *, rank: int):
        self._paths = paths
        self._plan = plan
        self._cadence = cadence
        self._rank = rank

    def save(self, trainer: Trainer, position: Position, *, last_top1: float | None) -> CheckpointInfo | None:
        """Commit the state at `position`; a collective. Rank 0 gets what was written, the others None.

        Weights and optimizer are equal on all ranks, and buffers are made so; each rank's random numbers are kept.
        """
        trainer.synchronise_buffers()
        rng = _gather_rng(self._rank, self._plan.world_size)
        if self._rank != 0:
            return None
        facts: dict[str, Any] = {
            "plan_fingerprint": self._plan.fingerprint,
            "world_size": self._plan.world_size,
            "last_top1": last_top1,
            "loss_scaler": trainer.scaler.state_dict(),
        }
        parts = {
            "model": trainer.model.state_dict(),
            "optimizer": optimizer_tensors(trainer.model, trainer.optimizer),
            "rng": rng,
        }
        saved = save(self._paths.checkpoints, position, parts, facts)
        boundaries = self._plan.phase_boundaries()
        prune(self._paths.checkpoints, keep=boundaries, keep_last=self._cadence.keep_last)
        return saved

    def restore(self, trainer: Trainer, path: Path) -> float | None:
        """Bring a trainer to the state in the checkpoint `path`; the top-1 accuracy that was measured last.

        Order matters: 1 weights and buffers, 2 optimizer, which refers to the weights by name, 3 loss scale, 4 random
        numbers last, as building anything before may have drawn some.
        """
        parts, facts = load(verify(path))
        trainer.model.load_state_dict(parts["model"])
        load_optimizer_tensors(trainer.model, trainer.optimizer, parts["optimizer"])
        trainer.scaler.load_state_dict(facts["loss_scaler"])
        prefix = f"rank{self._rank}/"
        own = {name.removeprefix(prefix): t for name, t in parts["rng"].items() if name.startswith(prefix)}
        if own:  # A rank that the earlier attempt did not have starts from the job's seed.
            restore_rng(own)
        last_top1 = facts.get("last_top1")
        return float(last_top1) if last_top1 is not None else None


def _gather_rng(rank: int, world_size: int) -> dict[str, Tensor]:
    """Every rank's random number generators, as tensors named rank0/..., on rank 0."""
    own = rng_tensors()
    if world_size == 1:
        return {f"rank{rank}/{name}": tensor for name, tensor in own.items()}
    gathered: list[dict[str, Tensor]] = [{} for _ in range(world_size)]
    dist.all_gather_object(gathered, own)
    return {f"rank{r}/{name}": tensor for r, tensors in enumerate(gathered) for name, tensor in tensors.items()}

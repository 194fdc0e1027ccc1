"""A model behind DistributedDataParallel: its first step rounds as all later ones, and so a resumed run's does."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from launcher.replica import replicate

RANKS = 3
"""Of two numbers a sum has but one rounding."""


class Crossed(nn.Module):
    """Layers of unequal sizes that are used in another order than they are registered in."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(301, 3)
        self.first = nn.Conv2d(3, 7, 3)
        self.middle = nn.Linear(7, 301)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.middle(self.first(images).mean(dim=(2, 3))))
        return logits


def gradients_as(rank: int, folder: Path) -> None:
    """Save the gradients of the same images twice, from the first backward pass and from the second."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    replica = replicate(Crossed(), torch.device("cpu"), resolution=8)
    replica.module.train()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(rank))
    passes = []
    for _ in range(2):
        replica.zero_grad()
        replica(images).square().sum().backward()
        passes.append({name: weights.grad.clone() for name, weights in replica.module.named_parameters()})
    torch.save(passes, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_the_first_steps_gradients_are_rounded_as_all_later_ones(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=gradients_as, args=(rank, tmp_path)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    for rank in range(RANKS):
        first, second = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(gradient.any() for gradient in first.values())

"""A model whose gradients are averaged over the ranks, to the bit as in a run that was never interrupted."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def replicate(model: nn.Module, device: torch.device, *, resolution: int) -> DistributedDataParallel:
    """`model` behind DistributedDataParallel, its gradients in their lasting groups; a collective.

    DDP regroups gradients after its first backward pass, in the order in which they came, and where three or more ranks
    add up, a sum's rounding depends on its place in the group. A resumed run would make its first step in other groups
    than the run that it goes on with. So one backward pass is made here, before anything is restored: in evaluation
    mode, which leaves norm statistics and random numbers alone.
    """
    replica = DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )
    logits = replica.eval()(torch.zeros(1, 3, resolution, resolution, device=device))
    torch.autograd.backward(logits.sum())
    replica.zero_grad(set_to_none=True)
    return replica


def dissolve(replica: DistributedDataParallel) -> None:
    """Free the replica's model for another one, whatever still refers to this one."""
    # Else it goes on exchanging gradients until it is collected.
    replica._remove_autograd_hooks()  # type: ignore[no-untyped-call]

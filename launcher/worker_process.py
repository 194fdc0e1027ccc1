"""What a worker's process does: threads, model, data, restore; then the worker's life."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchvision
from torch import nn

import launcher
from ffcv_datasets.batches import BatchSource
from ffcv_datasets.loader import Loader
from launcher.allocator import keep_freed_memory
from launcher.augmentation import Augmenter
from launcher.checkpoint import export_model
from launcher.config import Data
from launcher.coordinator import Done, Stop
from launcher.device_batches import host_memory, transfer_to
from launcher.disk_budget import disk_budget, shortage
from launcher.durable import free_bytes, require_space
from launcher.events import DiskWillBeFull, RunFinished, WorkersReady
from launcher.model_input import Pixels, choose_precision
from launcher.models import build_model, build_optimizer, lay_out, start_at_prior, start_from
from launcher.paths import RunPaths
from launcher.rehearsal import rehearse
from launcher.run_setup import RunSetup
from launcher.saving import Saver, Standing
from launcher.staging import staged
from launcher.tasks.classification import Classification
from launcher.trainer import Trainer
from launcher.worker import CoordinatorLink, Worker

if TYPE_CHECKING:
    from ffcv_datasets.ffcv_loader import FfcvLoader


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    rank: int
    workers_on_node: int
    device: torch.device

    @classmethod
    def alone(cls) -> Place:
        """The only worker, on the first GPU if there is one."""
        return cls(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


def run_worker(setup: RunSetup, place: Place, link: CoordinatorLink) -> Stop | Done:
    """Live one worker's life, and tell how it ended. With several workers the process group is up already."""
    began = time.perf_counter()
    job, paths = setup.job, RunPaths(setup.root)
    torch.set_num_threads(threads_per_worker(job.run.threads_per_worker, place.workers_on_node))
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    else:
        keep_freed_memory()
    precision = choose_precision(job.run.precision, place.device)
    with ExitStack() as stack:
        copies = stack.enter_context(_staged(job.data, link)) if job.data.stage else {}
        trainer = _build_trainer(setup, place, precision, copies, stack)
        link.heed(lambda: trainer.steps_begun)
        rehearse(trainer, setup.plan.rows[setup.start.epoch :])
        _seed_generators(job.seed, place.rank)
        saver = Saver(paths, setup.plan, job.checkpoint, rank=place.rank, claim=setup.claim)
        standing = saver.restore(trainer, setup.checkpoint) if setup.checkpoint else Standing()
        if place.rank == 0:
            link.emit(_ready(setup, place, precision))
            _look_at_disk(setup, trainer, link)
        worker = Worker(
            rank=place.rank,
            plan=setup.plan,
            position=setup.start,
            coordinator=link,
            trainer=trainer,
            saver=saver,
            transition_timeout_s=job.run.transition_timeout_s,
            standing=standing,
        )
        outcome = worker.run()
        if place.rank == 0 and isinstance(outcome, Done):
            export_model(paths.model, trainer.outcome, _model_facts(setup))
            link.emit(RunFinished(model=paths.model.name, seconds=time.perf_counter() - began))
        return outcome


def threads_per_worker(wanted: int | None, workers_on_node: int) -> int:
    """Threads for torch's CPU kernels: as the job says, else this process's share of the cores it may use.

    Slurm's word counts, too: where a cluster does not bind tasks, a process may run on cores that others were granted.
    """
    cores = len(os.sched_getaffinity(0))
    granted = int(os.environ.get("SLURM_CPUS_PER_TASK", cores))
    return wanted or max(1, min(cores, granted) // workers_on_node)


def _seed_generators(seed: int, rank: int) -> None:
    """Give each rank numbers of its own, as for dropout; the model's weights were drawn before, equal on all ranks."""
    own = np.random.SeedSequence((seed, rank)).generate_state(3)
    torch.manual_seed(int(own[0]))
    np.random.seed(own[1])
    random.seed(int(own[2]))


def _staged(data: Data, link: CoordinatorLink) -> AbstractContextManager[dict[str, Path]]:
    """The data's copies on this node's disk. Whoever copies moves, in the eyes of the watch over the workers."""
    moves = 0

    def moved() -> None:
        nonlocal moves
        moves += 1

    link.heed(lambda: moves)
    assert data.stage is not None
    sources = [path for path in (data.train, data.val) if path]
    return staged(sources, data.stage, timeout_s=data.stage_timeout_s, emit=link.emit, moved=moved)


def _build_trainer(
    setup: RunSetup, place: Place, precision: torch.dtype, copies: Mapping[str, Path], stack: ExitStack
) -> Trainer:
    """`copies` are what is read in the place of data files, by their paths."""
    job, data = setup.job, setup.data
    model = lay_out(_initial_model(setup), place.device)

    def open_data(path: str, largest_batch: int) -> BatchSource:
        loader = _open_loader(path, copies.get(path), job.data, place.device, largest_batch)
        stack.callback(loader.close)
        return loader

    sizes = [(row.resolution, row.batch_per_worker) for row in setup.plan.rows]
    largest_px = job.evaluation.resolution or max(resolution for resolution, _ in sizes)
    assert job.data.train is not None
    return Trainer(
        plan=setup.plan,
        rank=place.rank,
        device=place.device,
        precision=precision,
        model=model,
        optimizer=build_optimizer(job.optimizer, model),
        ema=job.ema,
        task=Classification(
            num_classes=data.num_classes,
            loss=job.loss,
            flip_tta=job.evaluation.flip_tta,
            device=place.device,
        ),
        augmenter=Augmenter(
            job.augmentation, seed=job.seed, num_classes=data.num_classes, mean_colour=data.channel_mean
        ),
        pixels=Pixels(data.channel_mean, data.channel_std),
        train_data=open_data(job.data.train, max(batch * 3 * px**2 for px, batch in sizes)),
        val_data=open_data(job.data.val, job.evaluation.batch_per_worker * 3 * largest_px**2) if job.data.val else None,
        transfer=transfer_to(place.device),
        evaluation=job.evaluation,
        clip_norm=job.optimizer.clip_norm,
    )


def _initial_model(setup: RunSetup) -> nn.Module:
    """As it is before anything is trained; what a checkpoint will replace is not looked for."""
    job, num_classes = setup.job, setup.data.num_classes
    model = build_model(job.model, num_classes=num_classes, seed=job.seed)
    if job.loss.name == "bce":
        start_at_prior(model, num_classes=num_classes)
    if setup.checkpoint is None:
        start_from(model, job.model)
    return model


def _open_loader(
    path: str, copy: Path | None, data: Data, device: torch.device, largest_batch: int
) -> Loader | FfcvLoader:
    """`largest_batch` is the number of bytes that the run's largest batch takes."""
    if data.loader == "ffcv":
        from ffcv_datasets.ffcv_loader import FfcvLoader  # FFCV takes seconds to import

        return FfcvLoader(path, copy=copy, threads=data.decode_threads_per_worker, batches_ahead=data.batches_ahead)
    return Loader(
        path,
        copy=copy,
        threads=data.decode_threads_per_worker,
        batches_ahead=data.batches_ahead,
        skip_corrupt=data.skip_corrupt,
        largest_batch_bytes=largest_batch,
        allocate=host_memory(device),
    )


def _look_at_disk(setup: RunSetup, trainer: Trainer, link: CoordinatorLink) -> None:
    """Tell in time of a disk that will be full. Raises DiskFullError if it has no room for a single checkpoint."""
    checkpoints = RunPaths(setup.root).checkpoints
    budget = disk_budget(
        setup.job.optimizer,
        setup.job.checkpoint,
        state_bytes=sum(tensor.nbytes for tensor in trainer.model.state_dict().values()),
        parameter_bytes=sum(parameter.nbytes for parameter in trainer.model.parameters()),
        num_boundaries=len(setup.plan.phase_boundaries()),
        has_average=trainer.average is not None,
    )
    require_space(checkpoints, budget.least_bytes)
    num_present = len(list(checkpoints.iterdir())) if checkpoints.is_dir() else 0
    short = shortage(budget, checkpoints, free_bytes=free_bytes(checkpoints), num_present=num_present)
    if short is not None:
        link.emit(DiskWillBeFull(short))


def _ready(setup: RunSetup, place: Place, precision: torch.dtype) -> WorkersReady:
    return WorkersReady(
        world_size=setup.plan.world_size,
        device=torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else "cpu",
        precision=str(precision).removeprefix("torch."),
        versions={module.__name__: str(module.__version__) for module in (launcher, torch, torchvision)},
    )


def _model_facts(setup: RunSetup) -> dict[str, object]:
    """What someone needs to use the weights without this project."""
    return {
        "job": setup.job.name,
        "model": setup.job.model.name,
        "model_options": setup.job.model.options,
        "num_classes": setup.data.num_classes,
        "classes": setup.data.classes,
        "channel_mean": setup.data.channel_mean,
        "channel_std": setup.data.channel_std,
        "weights": "last" if setup.job.ema is None else "exponential moving average",
        "train_resolution": setup.plan.rows[-1].resolution,
        "crop_ratio": setup.job.evaluation.crop_ratio,
        "plan_fingerprint": setup.plan.fingerprint,
    }

"""One attempt under Ray Train: its workers, their coordinator, and the watch over them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.attempts import Loss
from launcher.coordinator import Done, Stop
from launcher.executors.coordinator_actor import ANSWER_S, CoordinatorPost, News
from launcher.executors.failure import explain
from launcher.executors.ray_nodes import end_workers, nodes_at_hand, room_for_workers
from launcher.executors.ray_pipe import Driver, RayLostError
from launcher.executors.ray_worker import work
from launcher.planning import PlanError, feasible_world
from launcher.run_setup import RunSetup
from launcher.watch import Beat, Watch

_POLL_S = 0.2
_STRIDE_S = 1.0
"""At most so much passes on the watch's clock between two messages: if none come, no worker is to blame."""
_COMING_UP_S = 300.0
"""For workers and coordinator to come up; 15 s are usual."""
_ENDING_S = 60.0
"""For Ray Train to end once its workers have; 4 s are usual, 10 with a worker that it has to kill."""
_ROOM_EVERY_S = 5.0

T = TypeVar("T")


class RayAttempt:
    """Carries `setup` out from its start, with as many workers as its plan has."""

    def __init__(
        self,
        setup: RunSetup,
        driver: Driver,
        *,
        session: int,
        temp_dir: Path,
        meeting_file: Path,
        use_gpu: bool,
        logs: Path,
    ):
        """`session` is that of Ray's processes on this host, `temp_dir` where Ray keeps its files."""
        self._setup = setup
        self._driver = driver
        self._session = session
        self._temp_dir = temp_dir
        self._meeting_file = meeting_file
        self._use_gpu = use_gpu
        self._logs = logs
        stall_s = setup.job.run.stall_timeout_s
        self._watch = Watch(setup.plan.world_size, timeout_s=stall_s, coming_up_s=_COMING_UP_S, now_s=0.0)
        self._watched_s = 0.0
        self._heard_at_s = time.monotonic()
        self._farewells: dict[int, Stop | Done] = {}
        self._ended: Loss | None = None
        self._end_by_s: float | None = None

    def carry_out(self) -> Stop | Done | Loss | Exception:
        """How it ended. Raises RayLostError if Ray is no longer of use."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(num_cpus=0)(CoordinatorPost).options(scheduling_strategy=here)
        self._post: Any = actor.remote(self._setup.coordinator())
        try:
            return self._lead()
        finally:
            ray.kill(self._post)  # Whatever may still run of this attempt hears no more of it.

    def _lead(self) -> Stop | Done | Loss | Exception:
        self._ask_news(within_s=_COMING_UP_S)
        self._room = _in_background(self._larger_world) if self._may_grow else None
        fit = _in_background(self._fit)
        while not fit.done():
            wait([fit], timeout=_POLL_S)
            self._look()
            if self._end_by_s is not None and time.monotonic() > self._end_by_s:
                return self._left_hanging()
        self._hear_the_last()
        return self._farewells[0] if self._all_over else self._verdict(fit)

    def _fit(self) -> Any:
        """Not by Ray's TorchTrainer: its rank 0 listens on all addresses, and two more processes import torch.

        What Ray Train stores is of no use to us, and goes with Ray's directory.
        """
        train: Any = ray.train  # What it is for type checkers is an older interface.
        trainer: Any = DataParallelTrainer(
            partial(work, self._setup, self._post, self._meeting_file),
            scaling_config=train.ScalingConfig(num_workers=self._setup.plan.world_size, use_gpu=self._use_gpu),
            run_config=train.RunConfig(
                name=self._meeting_file.name,
                storage_path=str(self._temp_dir / "train"),
                failure_config=train.FailureConfig(
                    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
                ),
            ),
        )
        return trainer.fit().return_value

    def _look(self) -> None:
        """See what has come, and do what has to be done about it."""
        self._driver.show_life()
        if (reason := self._driver.next_order()) is not None:
            self._post.request_stop.remote(reason)
        if self._ended is None:
            self._listen()
        if self._ended is None and not self._all_over:
            self._end_the_stuck()
            self._offer_room()

    def _ask_news(self, *, within_s: float) -> None:
        self._news: Future[News] = self._post.take_news.remote().future()
        self._news_by_s = time.monotonic() + within_s

    def _listen(self) -> None:
        if not self._news.done():
            if time.monotonic() > self._news_by_s:
                self._end(Loss(f"the coordinator has not answered for {ANSWER_S:g} s"), self._watch.beats.values())
        elif self._news.exception() is not None:
            self._end(Loss("the coordinator's process has died"), self._watch.beats.values())
        else:
            self._hear()

    def _hear(self) -> None:
        now_s, news = time.monotonic(), self._news.result()
        self._watched_s += min(now_s - self._heard_at_s, _STRIDE_S)
        self._heard_at_s = now_s
        self._ask_news(within_s=ANSWER_S)
        for beat in news.beats.values():
            self._watch.hear(beat, self._watched_s)
        for letter in news.letters:
            self._driver.send_letter(letter)
        self._farewells.update(news.farewells)
        if self._all_over and self._end_by_s is None:
            self._end_by_s = now_s + _ENDING_S

    def _hear_the_last(self) -> None:
        """Twice: what is being asked for may have been asked for too early."""
        for _ in range(2):
            wait([self._news], timeout=_POLL_S * 10)
            if self._news.done() and self._news.exception() is None:
                self._hear()

    @property
    def _all_over(self) -> bool:
        return len(self._farewells) == self._setup.plan.world_size

    def _end_the_stuck(self) -> None:
        stuck = self._watch.stuck(self._watched_s)
        if not stuck:
            return
        what = "; ".join(each.what for each in stuck)
        alone = stuck[0].beat if len(stuck) == 1 else None
        loss = Loss(what, alone.rank, alone.host) if alone else Loss(what)
        known = [each.beat for each in stuck if each.beat]
        self._end(loss, known if len(known) == len(stuck) else self._watch.beats.values())

    def _end(self, loss: Loss, workers: Iterable[Beat]) -> None:
        """End these workers' processes, and the attempt thereby: `loss` is what it came to."""
        self._ended = loss
        self._end_by_s = time.monotonic() + _ENDING_S
        _in_background(partial(self._end_workers, workers))

    def _end_workers(self, workers: Iterable[Beat]) -> set[str]:
        """Nobody is to write on while the next attempt looks where to begin. The nodes that are there."""
        nodes = {node.id for node in nodes_at_hand()}
        end_workers(list(workers), nodes, session=self._session)
        return nodes

    def _offer_room(self) -> None:
        """Have the workers stop after their next checkpoint if more of them could go on from there."""
        if self._room is None or not self._room.done():
            return
        larger = self._room.result() if self._room.exception() is None else None
        self._room = None if larger else _in_background(self._larger_world)
        if larger:
            self._post.request_resize.remote(f"there is room for {larger} workers")

    @property
    def _may_grow(self) -> bool:
        return self._setup.plan.world_size < self._setup.job.run.most_workers

    def _larger_world(self) -> int | None:
        """A larger number of workers for which there was room twice, some seconds apart."""
        feasible = []
        for _ in range(2):
            time.sleep(_ROOM_EVERY_S)
            room = room_for_workers(nodes_at_hand(), use_gpu=self._use_gpu)
            try:
                world = feasible_world(self._setup.job, num_samples=self._setup.plan.num_samples, available=room)
            except PlanError:
                return None
            feasible.append(world)
        return min(feasible) if min(feasible) > self._setup.plan.world_size else None

    def _left_hanging(self) -> Stop | Done:
        """Ray Train has not ended, though its workers have: of no matter if nothing is to come after them."""
        outcome = self._farewells.get(0)
        if self._all_over and outcome is not None and not (isinstance(outcome, Stop) and outcome.resize):
            return outcome
        told = f"{self._ended.what}; " if self._ended else ""
        raise RayLostError(f"{told}Ray Train has not ended within {_ENDING_S:g} s after its workers")

    def _verdict(self, fit: Future[Stop | Done]) -> Stop | Done | Loss | Exception:
        error = fit.exception()
        if error is None:
            return fit.result()
        beats = self._watch.beats
        nodes = self._end_workers(beats.values())
        _keep_output((beat.pid for beat in beats.values()), self._temp_dir, self._logs)
        return self._ended or explain(error, beats=beats, nodes=nodes, logs=self._logs)


def _keep_output(pids: Iterable[int], temp_dir: Path, logs: Path) -> None:
    """Copy what these workers of this host have printed: Ray's own logs go when all is well in the end."""
    logs.mkdir(parents=True, exist_ok=True)
    for pid in pids:
        for log in temp_dir.glob(f"ray/session_latest/logs/worker-*-{pid}.*"):
            shutil.copy2(log, logs)


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Do `work` in a thread that does not keep this process alive."""
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future

"""The coordinator alone, asked by many workers: directives a second, a transition's time, memory.

    python benchmarks/coordinator_scale.py [--workers 1024] [--turns 200] [--leases 100000]

Workers are simulated: they ask in random order, and questions and answers are pickled both ways as an actor's are. What
Ray adds to each call, about a millisecond, is not in the figures.
"""

from __future__ import annotations

import argparse
import pickle
import random
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.config import JobConfig
from launcher.coordinator import Acknowledgement, Agreed, Agreement, Cadence, Coordinator, Directive, Run, Transition
from launcher.plan import BEGINNING, Plan
from launcher.planning import build_plan

BATCH = 32
STEPS = 1000


def make_plan(workers: int, *, epochs: int) -> Plan:
    """One phase, of STEPS steps an epoch."""
    job = JobConfig.model_validate(
        {
            "name": "scale",
            "data": {"num_samples": STEPS * BATCH * workers},
            "model": {"name": "resnet50"},
            "learning_rate": {"base": 1.0},
            "phases": [{"epochs": epochs, "resolution": 224, "batch_per_worker": BATCH}],
        }
    )
    return build_plan(job, num_samples=STEPS * BATCH * workers, world_size=workers)


@dataclass
class Fleet:
    """Simulated workers that all stand at one place."""

    coordinator: Coordinator
    draw: random.Random
    turn: int = 0

    def __post_init__(self) -> None:
        self.plan = self.coordinator.plan
        self.position = BEGINNING

    def ranks(self) -> list[int]:
        """All of them, in the order in which they happen to come."""
        return self.draw.sample(range(self.plan.world_size), self.plan.world_size)

    def ask(self, ranks: Sequence[int]) -> Directive:
        """Let these ask for the next directive; all then stand where it leads."""
        for rank in ranks:
            question = pickle.dumps((rank, self.turn, self.position, 1e4))
            number, turn, position, pace = pickle.loads(question)
            answer = self.coordinator.next(rank=number, turn=turn, position=position, samples_per_s=pace)
            directive: Directive = pickle.loads(pickle.dumps(answer))
        self.turn += 1
        if isinstance(directive, Run):
            self.position = self.plan.after(self.position, directive.until - directive.start)
        return directive

    def change_over(self, transition: Transition) -> int:
        """Let everybody acknowledge the last directive, and poll twice, at once and once all have; the polls."""
        for rank in self.ranks():
            self.coordinator.acknowledge(pickle.loads(pickle.dumps(self._acknowledgement(rank, transition))))
            self._poll()
        answers = [self._poll() for _ in self.ranks()]
        assert answers == [Agreed()] * self.plan.world_size
        return 2 * self.plan.world_size

    def _poll(self) -> Agreement:
        agreement: Agreement = pickle.loads(pickle.dumps(self.coordinator.agreement(self.turn - 1)))
        return agreement

    def _acknowledgement(self, rank: int, transition: Transition) -> Acknowledgement:
        return Acknowledgement(
            rank=rank,
            turn=self.turn - 1,
            resolution=transition.spec.resolution,
            batch_per_worker=transition.spec.batch_per_worker,
            learning_rate=self.plan.learning_rate(self.position),
            order_hash="0123456789abcdef",
            plan_fingerprint=self.plan.fingerprint,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--leases", type=int, default=100_000, help="of one attempt, for the memory")
    options = parser.parse_args()
    plan = make_plan(options.workers, epochs=1 + options.turns // STEPS)
    fleet = Fleet(Coordinator(plan, start=BEGINNING, cadence=Cadence(lease_s=0.0)), random.Random(0))

    opening = fleet.ask(fleet.ranks())
    assert isinstance(opening, Transition)
    began = time.perf_counter()
    polls = fleet.change_over(opening)
    seconds = time.perf_counter() - began
    print(f"a transition of {options.workers} workers: {options.workers} acknowledgements and {polls} polls", end=", ")
    print(f"{1e3 * seconds:.0f} ms")

    began = time.perf_counter()
    for _ in range(options.turns):
        fleet.ask(fleet.ranks())
    seconds = time.perf_counter() - began
    asked = options.turns * options.workers
    print(f"directives: {asked / seconds:,.0f} a second; one for everybody in {1e3 * seconds / options.turns:.1f} ms")

    held = measure_bytes(options.workers, options.leases)
    print(f"memory: {held / 1e6:.1f} MB after a transition and {options.leases:,} leases")


def measure_bytes(workers: int, leases: int) -> int:
    """What a coordinator holds after everybody's transition and so many leases; asking again adds nothing."""
    plan = make_plan(workers, epochs=-(-leases // STEPS))
    tracemalloc.start()
    fleet = Fleet(Coordinator(plan, start=BEGINNING, cadence=Cadence(lease_s=0.0)), random.Random(0))
    opening = fleet.ask(fleet.ranks())
    assert isinstance(opening, Transition)
    fleet.change_over(opening)
    while leases:
        leases -= isinstance(fleet.ask([0]), Run)
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


if __name__ == "__main__":
    main()

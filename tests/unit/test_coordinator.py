"""Who does what next: one answer for all ranks, whatever arrives between two questions."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.coordinator import (
    Acknowledgement,
    Agreed,
    Cadence,
    Checkpoint,
    CoordinationError,
    Coordinator,
    Directive,
    Disagreed,
    Done,
    Evaluate,
    Pending,
    Run,
    Stop,
    Transition,
    lease_end,
    lease_seconds,
)
from launcher.plan import Plan, Position
from tests.unit.sample_jobs import make_plan

WHOLE_EPOCHS = 1e9
"""A pace at which every lease reaches to its epoch's end."""
BEGINNING = Position(0)
STOP = -1
"""Among the ranks that ask: a stop request."""


class Fleet:
    """Ranks that walk a coordinator's directives, each at its own time."""

    def __init__(self, coordinator: Coordinator, *, start: Position = BEGINNING, pace: float | None = None):
        self.coordinator = coordinator
        self.plan = coordinator.plan
        self.pace = pace
        self.positions = [start] * self.plan.world_size
        self.logs: list[list[Directive]] = [[] for _ in self.positions]

    def ended(self, rank: int) -> bool:
        return bool(self.logs[rank]) and isinstance(self.logs[rank][-1], (Stop, Done))

    def ask(self, rank: int) -> None:
        """Let one rank ask for its next directive and carry it out."""
        if self.ended(rank):
            return
        directive = self.coordinator.next(
            rank=rank, turn=len(self.logs[rank]), position=self.positions[rank], samples_per_s=self.pace
        )
        self.logs[rank].append(directive)
        if isinstance(directive, Run):
            assert directive.spec.epoch == self.positions[rank].epoch
            assert directive.start == self.positions[rank].samples_done
            self.positions[rank] = self.plan.after(self.positions[rank], directive.until - directive.start)

    def walk(self, actions: Sequence[int]) -> None:
        """Ask and stop in the order of `actions`, then let every rank ask to its end."""
        for action in actions:
            if action == STOP:
                self.coordinator.request_stop("asked to")
            else:
                self.ask(action % self.plan.world_size)
        for rank in range(self.plan.world_size):
            while not self.ended(rank):
                self.ask(rank)

    @property
    def log(self) -> list[Directive]:
        """The directives, having checked that every rank got the same ones and stands at the same place."""
        assert all(log == self.logs[0] for log in self.logs)
        assert len(set(self.positions)) == 1
        return self.logs[0]


def lead(
    plan: Plan,
    *,
    start: Position = BEGINNING,
    pace: float | None = WHOLE_EPOCHS,
    actions: Sequence[int] = (),
    **cadence: Any,
) -> list[Directive]:
    """All directives from `start` to the end."""
    fleet = Fleet(Coordinator(plan, start=start, cadence=Cadence(**cadence)), start=start, pace=pace)
    fleet.walk(actions)
    return fleet.log


def of(kind: type[Directive], log: Sequence[Directive]) -> list[Any]:
    return [directive for directive in log if isinstance(directive, kind)]


THREE_EPOCHS = make_plan({"epochs": 2, "resolution": 16}, {"epochs": 1, "resolution": 24}, num_samples=40, world_size=2)


def test_directives_at_a_boundary_come_in_the_order_of_the_design() -> None:
    rows = THREE_EPOCHS.rows
    assert lead(THREE_EPOCHS) == [
        Transition(rows[0], previous=None),
        Run(rows[0], 0, 40),
        Evaluate(0, 16, "epoch_end"),
        Checkpoint(Position(1), phase_boundary=False),
        Run(rows[1], 0, 40),
        Evaluate(1, 16, "epoch_end"),
        Checkpoint(Position(2), phase_boundary=True),
        Transition(rows[2], previous=rows[1]),
        Evaluate(2, 24, "after_transition"),
        Run(rows[2], 0, 40),
        Evaluate(2, 24, "epoch_end"),
        Checkpoint(Position(3), phase_boundary=True),
        Done(),
    ]


def test_at_a_fixed_evaluation_size_the_accuracy_before_a_transition_is_not_measured_again() -> None:
    evaluations = of(Evaluate, lead(THREE_EPOCHS, evaluation_resolution=32))
    assert evaluations == [Evaluate(epoch, 32, "epoch_end") for epoch in range(3)]


def test_at_a_fixed_evaluation_size_it_is_measured_again_where_norm_statistics_are_estimated_anew() -> None:
    norm = {"kind": "recalibrate"}
    plan = make_plan({}, {"resolution": 24}, {"resolution": 32, "norm": {"kind": "none"}}, norm=norm, num_samples=40)
    moments = [(one.epoch, one.resolution, one.moment) for one in of(Evaluate, lead(plan, evaluation_resolution=32))]
    anew = (1, 32, "after_transition")
    assert moments == [(0, 32, "epoch_end"), anew, (1, 32, "epoch_end"), (2, 32, "epoch_end")]


def test_a_change_of_the_batch_alone_is_no_reason_to_evaluate_the_same_weights_again() -> None:
    plan = make_plan({"global_batch": 8}, {"global_batch": 10}, num_samples=40)
    log = lead(plan)
    assert len(of(Transition, log)) == 2
    assert of(Evaluate, log) == [Evaluate(0, 16, "epoch_end"), Evaluate(1, 16, "epoch_end")]


def test_without_validation_data_nothing_is_evaluated() -> None:
    assert of(Evaluate, lead(THREE_EPOCHS, evaluate_every_epochs=0)) == []


PHASES = st.lists(
    st.fixed_dictionaries(
        {
            "epochs": st.integers(1, 3),
            "resolution": st.sampled_from([16, 24, {"start": 16, "end": 48, "multiple_of": 16}]),
            "global_batch": st.sampled_from([6, 12]),
        }
    ),
    min_size=1,
    max_size=3,
)
PLANS = st.builds(
    lambda phases, world_size: make_plan(*phases, num_samples=40, world_size=world_size),
    PHASES,
    st.sampled_from([1, 2, 3]),
)
CADENCES = st.builds(
    Cadence,
    evaluate_every_epochs=st.integers(0, 3),
    evaluation_resolution=st.sampled_from([None, 32]),
    checkpoint_every_epochs=st.integers(1, 3),
)
PACES = st.sampled_from([None, 10.0, WHOLE_EPOCHS])
ACTIONS = st.lists(st.integers(0, 2), max_size=40)


@given(PLANS, st.integers(1, 4), st.integers(1, 4))
def test_evaluations_and_checkpoints_keep_their_cadence_and_never_miss_a_change(
    plan: Plan, evaluate_every: int, save_every: int
) -> None:
    log = lead(plan, evaluate_every_epochs=evaluate_every, checkpoint_every_epochs=save_every)
    changes = {
        row.epoch + 1 for row in plan.rows if row is plan.rows[-1] or not row.same_settings(plan.rows[row.epoch + 1])
    }
    ends = range(1, len(plan.rows) + 1)
    evaluated = [one.epoch + 1 for one in of(Evaluate, log) if one.moment == "epoch_end"]
    assert evaluated == [end for end in ends if end in changes or end % evaluate_every == 0]
    saved = of(Checkpoint, log)
    assert [one.position for one in saved] == [Position(end) for end in ends if end in changes or end % save_every == 0]
    assert tuple(one.position for one in saved if one.phase_boundary) == plan.phase_boundaries()


@given(PLANS, CADENCES, PACES)
def test_transitions_are_made_where_settings_change_and_nowhere_else(
    plan: Plan, cadence: Cadence, pace: float | None
) -> None:
    transitions = of(Transition, lead(plan, pace=pace, **dataclasses.asdict(cadence)))
    changes = [
        (before, after)
        for before, after in zip(plan.rows, plan.rows[1:], strict=False)
        if not before.same_settings(after)
    ]
    assert [(one.previous, one.spec) for one in transitions] == [(None, plan.rows[0]), *changes]


def check_spans(plan: Plan, log: Sequence[Directive], *, start: Position, end: Position) -> None:
    """Every sample between two places is trained once, in order, in whole batches."""
    position = start
    for lease in of(Run, log):
        assert lease.spec == plan.rows[position.epoch]
        assert lease.start == position.samples_done
        assert lease.until > lease.start
        assert (lease.until - lease.start) % lease.spec.global_batch == 0
        position = plan.after(position, lease.until - lease.start)
    assert position == end


@given(PLANS, CADENCES, PACES, ACTIONS)
def test_ranks_get_the_same_directives_in_whatever_order_they_ask(
    plan: Plan, cadence: Cadence, pace: float | None, asking: list[int]
) -> None:
    log = lead(plan, pace=pace, actions=asking, **dataclasses.asdict(cadence))
    assert log == lead(plan, pace=pace, **dataclasses.asdict(cadence))
    assert isinstance(log[-1], Done)
    check_spans(plan, log, start=Position(0), end=plan.end)


@settings(max_examples=200)
@given(PLANS, CADENCES, PACES, ACTIONS, ACTIONS)
def test_a_stop_between_any_two_questions_ends_all_ranks_at_one_saved_place(
    plan: Plan, cadence: Cadence, pace: float | None, before: list[int], after: list[int]
) -> None:
    coordinator = Coordinator(plan, start=Position(0), cadence=cadence)
    fleet = Fleet(coordinator, pace=pace)
    for rank in before:
        fleet.ask(rank % plan.world_size)
    granted = max(len(of(Run, log)) for log in fleet.logs)
    fleet.walk([STOP, *after])

    log, end = fleet.log, fleet.positions[0]
    check_spans(plan, log, start=Position(0), end=end)
    assert len(of(Run, log)) == granted, "a lease was granted after the stop"
    saved = [one.position for one in of(Checkpoint, log)]
    assert len(set(saved)) == len(saved), "saved twice at one place"
    if end == plan.end:
        assert log == lead(plan, pace=pace, **dataclasses.asdict(cadence)), "nothing was left to train"
    else:
        assert log[-1] == Stop("asked to", end)
        assert end == (saved[-1] if saved else Position(0))
    boundaries = plan.phase_boundaries()
    assert all(one.phase_boundary == (one.position in boundaries) for one in of(Checkpoint, log))


@given(PLANS, CADENCES, st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=4))
def test_a_run_stopped_and_resumed_again_and_again_trains_every_sample_once(
    plan: Plan, cadence: Cadence, attempts: list[list[int]]
) -> None:
    start, trained = Position(0), []
    for asking in attempts:
        log = lead(plan, start=start, pace=None, actions=[*asking, STOP], **dataclasses.asdict(cadence))
        trained += of(Run, log)
        start = log[-1].position if isinstance(log[-1], Stop) else plan.end
    log = lead(plan, start=start, pace=None, **dataclasses.asdict(cadence))
    check_spans(plan, [*trained, *log], start=Position(0), end=plan.end)
    assert isinstance(log[-1], Done)


@given(PLANS, CADENCES, st.booleans())
def test_a_resume_from_any_place_makes_good_what_was_owed_and_goes_on(
    plan: Plan, cadence: Cadence, evaluated: bool
) -> None:
    whole = lead(plan, pace=None, **dataclasses.asdict(cadence))
    since_lease: list[Directive] = []
    for turn, directive in enumerate(whole):
        if not isinstance(directive, Run):
            since_lease.append(directive)
            continue
        start = Position(directive.spec.epoch, directive.start)
        coordinator = Coordinator(plan, start=start, cadence=cadence, evaluated=evaluated)
        fleet = Fleet(coordinator, start=start)
        fleet.walk([])
        owed = [
            one
            for one in since_lease
            if isinstance(one, Transition)
            or (isinstance(one, Evaluate) and (one.moment == "after_transition" or not evaluated))
        ]
        if not of(Transition, owed):
            owed.append(Transition(directive.spec, previous=None))
        assert fleet.log == [*owed, *whole[turn:]]
        since_lease = []


def test_the_last_evaluation_is_made_good_after_a_stop_right_before_it() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=THREE_EPOCHS.end, cadence=Cadence(), evaluated=False)
    fleet = Fleet(coordinator, start=THREE_EPOCHS.end)
    fleet.walk([])
    assert fleet.log == [Evaluate(2, 24, "epoch_end"), Done()]


def test_checkpoints_by_time_fall_between_leases_and_are_counted_from_the_last_one() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence(checkpoint_every_s=10))
    position, saved = Position(0), []
    for turn in range(12):
        directive = coordinator.next(rank=0, turn=turn, position=position, now_s=100.0 + 4 * turn)
        if isinstance(directive, Run):
            position = THREE_EPOCHS.after(position, directive.until - directive.start)
        if isinstance(directive, Checkpoint):
            saved.append((turn, directive.position, directive.phase_boundary))
    assert saved == [(4, Position(0, 24), False), (8, Position(1), False), (11, Position(1, 16), False)]


def test_without_progress_nothing_is_saved_by_time() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence(checkpoint_every_s=10))
    coordinator.next(rank=0, turn=0, position=Position(0), now_s=0)
    assert isinstance(coordinator.next(rank=0, turn=1, position=Position(0), now_s=99), Run)


def test_a_resize_saves_and_stops_for_others_to_go_on() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence())
    fleet = Fleet(coordinator)
    for rank in (0, 0):
        fleet.ask(rank)
    coordinator.request_resize("4 workers instead of 2")
    fleet.walk([])
    at = Position(0, 8)
    assert fleet.log[-2:] == [Checkpoint(at, phase_boundary=False), Stop("4 workers instead of 2", at, resize=True)]


@pytest.mark.parametrize("resize_first", [True, False])
def test_a_stop_that_comes_beside_a_resize_wins(resize_first: bool) -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence())
    if resize_first:
        coordinator.request_resize("grow")
    coordinator.request_stop("received SIGTERM")
    coordinator.request_resize("grow")
    assert coordinator.next(rank=0, turn=0, position=Position(0)) == Stop("received SIGTERM", Position(0))


@pytest.mark.parametrize(
    ("grace_s", "save_s", "lease_s"),
    [
        pytest.param(None, 60.0, 2.0, id="no grace period is known"),
        pytest.param(30.0, 5.0, 2.0, id="there is time enough"),
        pytest.param(10.0, 4.0, 1.0, id="half of the grace period holds a lease and a save"),
        pytest.param(10.0, 8.0, 0.0, id="not even a save fits: a step at a time"),
    ],
)
def test_leases_leave_time_for_a_save_in_the_grace_period(grace_s: float | None, save_s: float, lease_s: float) -> None:
    assert lease_seconds(Cadence(lease_s=2.0, grace_s=grace_s), save_s) == lease_s


def test_a_resume_at_the_end_has_nothing_to_do_not_even_when_stopped() -> None:
    assert lead(THREE_EPOCHS, start=THREE_EPOCHS.end) == [Done()]
    assert lead(THREE_EPOCHS, start=THREE_EPOCHS.end, actions=[STOP]) == [Done()]


@pytest.mark.parametrize("start", [Position(0), Position(1, 16), Position(2)])
def test_a_stop_before_anything_is_trained_saves_nothing(start: Position) -> None:
    assert lead(THREE_EPOCHS, start=start, actions=[STOP]) == [Stop("asked to", start)]


def test_a_stop_between_two_ranks_gives_one_answer() -> None:
    log = lead(THREE_EPOCHS, pace=None, actions=[0, 0, STOP, 1, 1])
    assert log[1] == Run(THREE_EPOCHS.rows[0], 0, 8)
    assert log[-1] == Stop("asked to", Position(0, 8))


def test_a_stop_in_mid_epoch_saves_there_and_stops() -> None:
    log = lead(THREE_EPOCHS, pace=None, actions=[0, 0, STOP])
    assert log == [
        Transition(THREE_EPOCHS.rows[0], previous=None),
        Run(THREE_EPOCHS.rows[0], 0, 8),
        Checkpoint(Position(0, 8), phase_boundary=False),
        Stop("asked to", Position(0, 8)),
    ]


def test_a_stop_at_a_phases_end_saves_the_boundary_before_the_transition() -> None:
    # Turns: transition, epoch 0, evaluate, save, epoch 1.
    log = lead(THREE_EPOCHS, actions=[0] * 5 + [STOP])
    assert log[5:] == [Checkpoint(Position(2), phase_boundary=True), Stop("asked to", Position(2))]


def test_a_stop_after_the_boundary_was_saved_does_not_save_it_again() -> None:
    log = lead(THREE_EPOCHS, actions=[0] * 8 + [STOP])
    assert isinstance(log[7], Transition)
    assert log[8:] == [Stop("asked to", Position(2))]


def test_a_stop_during_the_last_evaluation_lets_the_run_finish() -> None:
    whole = lead(THREE_EPOCHS)
    assert whole[-3] == Evaluate(2, 24, "epoch_end")
    for asked in range(len(whole) - 3, len(whole) + 1):
        assert lead(THREE_EPOCHS, actions=[0] * asked + [STOP]) == whole


def test_the_first_reason_to_stop_is_the_one_told() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence())
    coordinator.request_stop("time is up")
    coordinator.request_stop("received SIGTERM")
    assert coordinator.next(rank=0, turn=0, position=Position(0)) == Stop("time is up", Position(0))


def test_the_first_asker_sizes_the_lease_for_all() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence(lease_s=2))
    for rank in (0, 1):
        coordinator.next(rank=rank, turn=0, position=Position(0))
    answers = [
        coordinator.next(rank=rank, turn=1, position=Position(0), samples_per_s=pace)
        for rank, pace in ((1, 8.0), (0, WHOLE_EPOCHS))
    ]
    assert answers == [Run(THREE_EPOCHS.rows[0], 0, 16)] * 2


def test_a_rank_at_another_place_is_refused_by_name() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=Position(0), cadence=Cadence())
    fleet = Fleet(coordinator)
    for rank in (0, 0, 0, 1):
        fleet.ask(rank)
    with pytest.raises(CoordinationError) as caught:
        coordinator.next(rank=1, turn=2, position=Position(0, 16))
    assert str(caught.value) == "rank 1 stands at epoch 0, sample 16 where the run stands at epoch 0, sample 8"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_nobody_may_skip_a_turn_or_ask_on_after_the_end() -> None:
    coordinator = Coordinator(THREE_EPOCHS, start=THREE_EPOCHS.end, cadence=Cadence())
    with pytest.raises(AssertionError):
        coordinator.next(rank=0, turn=1, position=THREE_EPOCHS.end)
    coordinator.next(rank=0, turn=0, position=THREE_EPOCHS.end)
    with pytest.raises(AssertionError):
        coordinator.next(rank=0, turn=1, position=THREE_EPOCHS.end)


def test_nobody_may_ask_on_after_a_stop_not_even_for_what_was_planned_before_it() -> None:
    fleet = Fleet(Coordinator(THREE_EPOCHS, start=BEGINNING, cadence=Cadence()), pace=WHOLE_EPOCHS)
    fleet.walk([0, 0, STOP])  # Epoch 0 is trained; its evaluation is not asked for any more.
    assert isinstance(fleet.log[-1], Stop)
    with pytest.raises(AssertionError):
        fleet.coordinator.next(rank=0, turn=len(fleet.log), position=Position(1))


def test_directives_and_answers_survive_pickling() -> None:
    log = lead(THREE_EPOCHS, pace=None, actions=[0] * 30 + [STOP])
    assert pickle.loads(pickle.dumps(log)) == log
    for answer in (Pending((1, 2)), Agreed(), Disagreed("why")):
        assert pickle.loads(pickle.dumps(answer)) == answer


@given(st.integers(1, 8), st.integers(1, 50), st.data(), st.floats(0, 1e6) | st.none(), st.floats(0.01, 100))
def test_a_lease_is_whole_steps_within_the_epoch_and_about_as_long_as_asked(
    batch: int, steps: int, data: st.DataObject, pace: float | None, lease_s: float
) -> None:
    spec = make_plan({"global_batch": batch}, num_samples=batch * steps + batch - 1).rows[0]
    start = data.draw(st.integers(0, steps - 1)) * batch
    until = lease_end(spec, start, samples_per_s=pace, lease_s=lease_s)
    assert start + batch <= until <= spec.num_samples == batch * steps
    assert (until - start) % batch == 0
    wanted = (pace or 0) * lease_s
    assert until - start <= max(batch, wanted)
    assert until == spec.num_samples or until - start > wanted - batch or until - start == batch


def acknowledgement(plan: Plan, *, rank: int, **changes: Any) -> Acknowledgement:
    row = plan.rows[0]
    return dataclasses.replace(
        Acknowledgement(
            rank=rank,
            turn=0,
            resolution=row.resolution,
            batch_per_worker=row.batch_per_worker,
            learning_rate=row.lr_start,
            order_hash="abc",
            plan_fingerprint=plan.fingerprint,
        ),
        **changes,
    )


def at_first_transition(plan: Plan) -> Coordinator:
    coordinator = Coordinator(plan, start=Position(0), cadence=Cadence())
    coordinator.next(rank=0, turn=0, position=Position(0))
    return coordinator


def test_ranks_that_have_not_acknowledged_are_named_until_all_have() -> None:
    plan = make_plan({}, world_size=4)
    coordinator = at_first_transition(plan)
    assert coordinator.agreement(0) == Pending((0, 1, 2, 3))
    for rank, missing in ((2, (0, 1, 3)), (0, (1, 3)), (0, (1, 3)), (3, (1,))):
        coordinator.acknowledge(acknowledgement(plan, rank=rank))
        assert coordinator.agreement(0) == Pending(missing)
    coordinator.acknowledge(acknowledgement(plan, rank=1))
    assert coordinator.agreement(0) == Agreed()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"resolution": 24}, "resolution 24 instead of 16"),
        ({"batch_per_worker": 5}, "batch_per_worker 5 instead of 4"),
        ({"learning_rate": 1.0}, "learning_rate 1.0 instead of 0.003125"),
        ({"plan_fingerprint": "f00"}, "plan_fingerprint f00 instead of "),
        ({"resolution": 24, "batch_per_worker": 2}, "resolution 24 instead of 16, batch_per_worker 2 instead of 4"),
    ],
)
def test_a_rank_that_uses_other_settings_is_named_with_what_differs_before_the_others_answer(
    change: dict[str, Any], told: str
) -> None:
    plan = make_plan({}, world_size=2)
    coordinator = at_first_transition(plan)
    coordinator.acknowledge(acknowledgement(plan, rank=1, **change))
    agreement = coordinator.agreement(0)
    assert isinstance(agreement, Disagreed)
    assert agreement.reason.startswith(f"rank 1 uses {told}")
    assert agreement.reason.endswith("at epoch 0")


def test_all_ranks_that_differ_are_named() -> None:
    plan = make_plan({}, world_size=4)
    coordinator = at_first_transition(plan)
    for rank in range(4):
        coordinator.acknowledge(acknowledgement(plan, rank=rank, resolution=24 if rank % 2 else 16))
    assert coordinator.agreement(0) == Disagreed(
        "rank 1 uses resolution 24 instead of 16 at epoch 0; rank 3 uses resolution 24 instead of 16 at epoch 0"
    )


def test_ranks_with_different_sample_orders_do_not_agree() -> None:
    plan = make_plan({}, world_size=2)
    coordinator = at_first_transition(plan)
    for rank in range(2):
        coordinator.acknowledge(acknowledgement(plan, rank=rank, order_hash=f"order {rank}"))
    agreement = coordinator.agreement(0)
    assert isinstance(agreement, Disagreed)
    assert agreement.reason == "ranks hold different sample orders for epoch 0: {0: 'order 0', 1: 'order 1'}"


def test_an_acknowledgement_of_another_transition_does_not_count() -> None:
    plan = make_plan({}, {"resolution": 24})
    fleet = Fleet(Coordinator(plan, start=Position(0), cadence=Cadence()), pace=WHOLE_EPOCHS)
    fleet.walk([])
    first, second = (turn for turn, directive in enumerate(fleet.log) if isinstance(directive, Transition))
    fleet.coordinator.acknowledge(acknowledgement(plan, rank=0, turn=first))
    assert fleet.coordinator.agreement(first) == Agreed()
    assert fleet.coordinator.agreement(second) == Pending((0,))
    fleet.coordinator.acknowledge(acknowledgement(plan, rank=0, turn=second, resolution=24))
    assert fleet.coordinator.agreement(second) == Agreed()


def test_a_resume_in_the_middle_of_an_epoch_agrees_on_the_learning_rate_there() -> None:
    plan = make_plan({"warmup_epochs": 1}, num_samples=80)
    start = Position(0, 40)
    coordinator = Coordinator(plan, start=start, cadence=Cadence())
    coordinator.next(rank=0, turn=0, position=start)
    coordinator.acknowledge(acknowledgement(plan, rank=0, learning_rate=plan.learning_rate(start)))
    assert coordinator.agreement(0) == Agreed()
    assert plan.learning_rate(start) > plan.rows[0].lr_start

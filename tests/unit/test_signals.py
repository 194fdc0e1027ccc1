"""Stop requests from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import product

import pytest

from launcher.signals import STOP_SIGNALS, stop_on_signal


@pytest.fixture(autouse=True)
def heard_hangup() -> Iterator[None]:
    """The tests may themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("first", "second"), list(product(STOP_SIGNALS, repeat=2)))
def test_the_first_signal_asks_and_the_second_insists(first: signal.Signals, second: signal.Signals) -> None:
    asked: list[str] = []
    with stop_on_signal(asked.append):
        os.kill(os.getpid(), first)
        assert asked == [f"received {first.name}"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
    assert len(asked) == 1


def test_a_lost_terminal_is_no_matter_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked: list[str] = []
    with stop_on_signal(asked.append):
        signal.raise_signal(signal.SIGHUP)
        assert asked == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_afterwards_signals_are_handled_as_before_also_when_it_ended_in_an_error() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with pytest.raises(KeyboardInterrupt), stop_on_signal(lambda reason: signal.raise_signal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before

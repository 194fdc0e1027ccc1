"""Stop requests from outside."""

from __future__ import annotations

import signal

import pytest

from launcher.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_insists(number: signal.Signals) -> None:
    asked: list[str] = []
    with stop_on_signal(asked.append):
        signal.raise_signal(number)
        assert asked == [f"received {number.name}"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert len(asked) == 1


def test_two_different_signals_count_as_two() -> None:
    asked: list[str] = []
    with stop_on_signal(asked.append):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == ["received SIGTERM"]


def test_afterwards_signals_are_handled_as_before_also_when_it_ended_in_an_error() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(KeyboardInterrupt), stop_on_signal(lambda reason: signal.raise_signal(signal.SIGTERM)):
        signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before

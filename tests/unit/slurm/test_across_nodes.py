"""A run that has too few workers left on its nodes asks for others, by a stand-in for scontrol."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.slurm.across_nodes import ask_for_other_nodes

StandIn = Callable[[int], Path]


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Makes one that ends with that exit code; where it writes down what it was asked."""

    def make(code: int) -> Path:
        asked, program = tmp_path / "asked", tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "$@" > {asked}\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return asked

    return make


def test_the_job_is_queued_again_and_the_signal_that_ends_it_awaited(scontrol: StandIn) -> None:
    asked = scontrol(0)
    reasons: list[str] = []
    signal = threading.Timer(0.5, reasons.append, ["SIGTERM"])
    signal.start()
    ask_for_other_nodes("7_2", reasons)
    assert reasons == ["SIGTERM"]
    assert asked.read_text() == "requeue 7_2\n"
    signal.join()


def test_a_job_that_slurm_does_not_queue_again_ends_at_once(scontrol: StandIn) -> None:
    scontrol(1)
    began = time.monotonic()
    ask_for_other_nodes("7", [])
    assert time.monotonic() - began < 10

"""What the doctor makes of what was found: each rule, on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.doctor import Finding, Host, Outcome, Package, judge_file_system, judge_host, judge_unwritable
from launcher.file_system import FileSystem

SOUND = FileSystem(
    directory=Path("/runs"),
    rename="",
    exclusive="",
    flush="",
    listing="",
    locks="",
    clock_ahead_s=-0.2,
    free_bytes=50_000_000_000,
)
GOOD = Host(
    python=(3, 11, 2),
    packages=(Package("torch", "2.6.0"), Package("ray", "2.60.0")),
    gpus=("H100", "H100"),
    decoder_error="",
    has_avx2=True,
    shared_memory_bytes=8_000_000_000,
    ray_temp_dir="/tmp",
    ray_temp_trouble="",
    open_files=20_000,
)


def file_system(*, checkpoint: int = 0, **changes: Any) -> dict[str, Finding]:
    findings = judge_file_system(replace(SOUND, **changes), newest_checkpoint_bytes=checkpoint)
    return {finding.check: finding for finding in findings}


def host(**changes: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge_host(replace(GOOD, **changes))}


def test_where_all_is_well_nothing_is_advised() -> None:
    findings = [*file_system().values(), *host().values()]
    assert {(finding.outcome, finding.advice) for finding in findings} == {(Outcome.OK, "")}
    assert host()["GPUs"].found == "2: H100"


@pytest.mark.parametrize(
    ("promise", "check", "outcome"),
    [
        ("rename", "rename", Outcome.FAILED),
        ("exclusive", "exclusive creation", Outcome.FAILED),
        ("flush", "flush", Outcome.WARNING),
        ("listing", "listing", Outcome.WARNING),
        ("locks", "locks", Outcome.WARNING),
    ],
)
def test_a_promise_that_is_not_kept_is_told(promise: str, check: str, outcome: Outcome) -> None:
    broken: dict[str, Any] = {promise: "it is not so"}
    finding = file_system(**broken)[check]
    assert (finding.outcome, finding.found) == (outcome, "it is not so")
    assert finding.advice


@pytest.mark.parametrize(
    ("ahead_s", "outcome", "found"),
    [
        (59.0, Outcome.OK, "59.0 s ahead of this host's"),
        (61.0, Outcome.WARNING, "61.0 s ahead of this host's"),
        (-3600.0, Outcome.WARNING, "3600.0 s behind this host's"),
    ],
)
def test_clocks_that_are_a_minute_apart_mislead(ahead_s: float, outcome: Outcome, found: str) -> None:
    finding = file_system(clock_ahead_s=ahead_s)["clock"]
    assert (finding.outcome, finding.found) == (outcome, found)


@pytest.mark.parametrize(
    ("free", "checkpoint", "outcome"),
    [
        (999_999_999, 0, Outcome.WARNING),
        (1_000_000_000, 0, Outcome.OK),
        (3_000_000_000, 4_000_000_000, Outcome.FAILED),
        (7_000_000_000, 4_000_000_000, Outcome.WARNING),
        (8_000_000_000, 4_000_000_000, Outcome.OK),
    ],
)
def test_there_is_to_be_room_for_checkpoints(free: int, checkpoint: int, outcome: Outcome) -> None:
    assert file_system(free_bytes=free, checkpoint=checkpoint)["room"].outcome is outcome


def test_a_directory_that_nobody_can_write_to_fails() -> None:
    (finding,) = judge_unwritable("/runs", "Read-only file system")
    assert (finding.outcome, finding.found) == (Outcome.FAILED, "/runs: Read-only file system")


def test_an_old_python_fails() -> None:
    assert host(python=(3, 9, 18))["python"].outcome is Outcome.FAILED


def test_a_package_that_everything_needs_fails_and_others_say_what_is_not_possible() -> None:
    gone = (Package("torch", "", "ImportError: libcudart.so"), Package("timm", ""))
    findings = host(packages=gone)
    assert (findings["torch"].outcome, findings["torch"].found) == (Outcome.FAILED, "ImportError: libcudart.so")
    assert (findings["timm"].outcome, findings["timm"].found) == (Outcome.WARNING, "not installed")
    assert "models named timm/..." in findings["timm"].advice


@pytest.mark.parametrize(
    ("changes", "check", "outcome"),
    [
        ({"decoder_error": "ImportError: libjpeg.so"}, "decoder", Outcome.FAILED),
        ({"has_avx2": False}, "decoder", Outcome.WARNING),
        ({"gpus": ()}, "GPUs", Outcome.WARNING),
        ({"shared_memory_bytes": 64 << 20}, "shared memory", Outcome.WARNING),
        ({"ray_temp_trouble": "Permission denied"}, "temporary files", Outcome.FAILED),
        ({"open_files": 1024}, "open files", Outcome.WARNING),
    ],
)
def test_a_machine_that_lacks_something_is_told_what(changes: dict[str, Any], check: str, outcome: Outcome) -> None:
    finding = host(**changes)[check]
    assert finding.outcome is outcome
    assert finding.advice

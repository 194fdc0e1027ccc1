"""Site profiles: strict, with every mistake at once; the examples are sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.job_file import parse_document
from launcher.mistakes import JobError
from launcher.slurm.profile import Nodes, Profile, load_profile

EXAMPLES = sorted((Path(__file__).parents[3] / "slurm" / "profiles").glob("*.yaml"))
LEAST = "cpus_per_node: 4\nworkers_per_node: 2\ntime_limit_minutes: 10\n"


def parse(text: str) -> Profile:
    return parse_document(Profile, text, source="site.yaml")


def mistakes(text: str) -> list[str]:
    with pytest.raises(JobError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_by_its_name(example: Path) -> None:
    assert load_profile(example.stem) == load_profile(str(example))


def test_overrides_reach_a_profile() -> None:
    profile = load_profile("cpu", ["nodes={min: 1, max: 3}", "time_limit_minutes=5"])
    assert (profile.nodes, profile.time_limit_minutes) == (Nodes(min=1, max=3), 5)


def test_a_profile_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(JobError, match=r"there is no such site profile; did you mean cpu\?"):
        load_profile("cpus")


def test_all_mistakes_are_told_at_once_with_lines_and_fixes() -> None:
    text = "partition: a b\ngpus_per_nodes: 8\ncpus_per_node: 0\nsetup: activate\ntime_limit_minutes: soon\n"
    told = sorted(mistakes(text))
    assert [line.partition(":")[0] for line in told] == ["line 1", "line 2", "line 3", "line 4", "line 5"]
    assert "did you mean `gpus_per_node`?" in told[1]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("workers_per_node: null", "is needed where gpus_per_node is 0"),
        ("gpus_per_node: 1", "each worker needs a GPU of its own, and gpus_per_node is 1; use 1"),
        ("nodes: {min: 3, max: 2}", "is below min: 3; use 3 or more"),
        ("nodes: 0", "must be at least 1"),
        ("partition: $(reboot)", "must be one word, without quotes and what a shell acts upon"),
        ("account: 'a\nb'", "must be one word"),
        ("setup: ['a\n\n  b']", "must be one line"),
        ("environment: {'A B': x}", "is no name of a variable"),
        ("signal: KILL", "is none of the choices"),
        ("signal_lead_s: 70000", "must be at most 65535"),
    ],
)
def test_what_slurm_or_a_shell_would_misread_is_refused(line: str, rule: str) -> None:
    key = line.partition(":")[0]
    kept = "".join(kept + "\n" for kept in LEAST.splitlines() if not kept.startswith(key))
    assert any(rule in told for told in mistakes(f"{kept}{line}\n"))


def test_workers_are_one_for_each_gpu_unless_told_otherwise() -> None:
    assert parse("gpus_per_node: 8\ncpus_per_node: 64\ntime_limit_minutes: 10").workers_on_each_node == 8
    assert parse(LEAST).workers_on_each_node == 2

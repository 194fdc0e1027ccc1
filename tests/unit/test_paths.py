"""Names of a run's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.paths import CheckpointName, RunPaths, claim_number, is_temporary, temporary
from launcher.plan import Position

positions = st.builds(Position, st.integers(0, 99_999), st.integers(0, 999_999_999))
names = st.builds(CheckpointName, positions, st.integers(0, 999))


def test_every_file_has_a_name_of_its_own_inside_the_root() -> None:
    paths = RunPaths(Path("runs/x"))
    properties = [name for name, member in vars(RunPaths).items() if isinstance(member, property)]
    places = [getattr(paths, name) for name in properties]
    assert len(set(places)) == len(properties) >= 7
    assert all(place.parent == paths.root for place in places)


@settings(deadline=None)
@given(st.integers(1, 10**7))
def test_the_number_of_a_claim_reads_back_from_its_name(number: int) -> None:
    assert claim_number(RunPaths(Path("r")).claim(number).name) == number


@pytest.mark.parametrize("name", ["owner-00000.json", "owner-000003.json", "owner-3.json", "owner.json", "owner-00003"])
def test_no_other_name_is_a_claims(name: str) -> None:
    assert claim_number(name) is None


def test_checkpoint_name_tells_epoch_and_samples() -> None:
    name = CheckpointName(Position(5, 0))
    assert str(name) == "e00005-s000000000"
    assert str(CheckpointName(Position(5, 1280), replay=2)) == "e00005-s000001280-r002"
    assert RunPaths(Path("r")).checkpoint(name) == Path("r/checkpoints/e00005-s000000000")


@settings(deadline=None)
@given(names)
def test_checkpoint_name_reads_back(name: CheckpointName) -> None:
    assert CheckpointName.parse(str(name)) == name


@settings(deadline=None)
@given(st.lists(names, unique=True))
def test_checkpoint_names_sort_in_a_listing_as_positions_do(some: list[CheckpointName]) -> None:
    assert [CheckpointName.parse(text) for text in sorted(map(str, some))] == sorted(some)


@settings(deadline=None)
@given(st.builds(CheckpointName, st.builds(Position, st.integers(0), st.integers(0)), st.integers(0)))
def test_checkpoint_name_beyond_its_width_still_reads_back(name: CheckpointName) -> None:
    assert CheckpointName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "e5-s0",
        "e00005",
        "e00005-s000000000/",
        "../e00005-s000000000",
        "e00005-s000000000\n",
        "e00005-s000000000-r000",
        "e000005-s000000000",
        "e00005-s000000000-r01",
        "e0000\u0665-s000000000",
    ],
)
def test_any_other_text_is_no_checkpoint_name(text: str) -> None:
    assert CheckpointName.parse(text) is None


def test_temporary_name_is_hidden_beside_its_target_and_names_the_process() -> None:
    path = temporary(Path("runs/x/job.yaml"), pid=42)
    assert path == Path("runs/x/.tmp-42-job.yaml")
    assert is_temporary(path.name)
    assert not is_temporary("job.yaml")
    assert CheckpointName.parse(path.name) is None

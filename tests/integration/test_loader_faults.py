"""What our loader makes of each fault in benchmarks/faults.py: an error by file and sample, or right pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.fault_files import HURT, NUM_SAMPLES
from benchmarks.faults import FAULTS, outcome, tell

ALL_RIGHT = "all right"
ALL_REPLACED = f"{2 * len(HURT)} replaced and counted"
"""In two epochs."""
SAMPLE = r"error: DataError: damaged\.beton: sample (21|22|40) cannot be decoded: .*"
TABLES = r"error: BetonError: damaged\.beton: is incomplete.*"
CUT = r"error: DataError: damaged\.beton: sample \d+ cannot be decoded: .*cut after it had been opened.*"

# Without skip_corrupt, and with it.
EXPECTED = {
    # Of damage that libjpeg cannot see only a checksum knows, which FFCV's files have not.
    "JPEG overwritten in its middle": (SAMPLE, r"(\d wrong, no error, )?\d replaced and counted"),
    "sample cut in half": (SAMPLE, ALL_REPLACED),
    "empty sample": (SAMPLE + "nothing is stored for it.*", ALL_REPLACED),
    "sides of 65,535 pixels": (SAMPLE + "64 x 64 pixels, but the file's table says 65535 x 65535.*", ALL_REPLACED),
    "sides not those of the JPEG": (SAMPLE + "64 x 64 pixels, but the file's table says 56 x 64.*", ALL_REPLACED),
    "bit flipped in a JPEG": (SAMPLE, r"(\d wrong, no error, )?\d replaced and counted"),
    "bit flipped in the tables": (TABLES, TABLES),
    "file short of 3 table rows": (TABLES, TABLES),
    "file cut in half": (TABLES, TABLES),
    "file cut while read": (CUT, CUT),
    "file overwritten while read": (
        r"error: DataError: damaged\.beton: sample \d+ cannot be decoded: .*",
        r"error: DataError: damaged\.beton: sample \d+ cannot be decoded: .*",
    ),
    "file replaced while read": (ALL_RIGHT, ALL_RIGHT),
    "checksums, JPEG overwritten": (SAMPLE + "their checksum differs.*", ALL_REPLACED),
    "checksums, bit flipped in a JPEG": (SAMPLE + "their checksum differs.*", ALL_REPLACED),
    "checksums, bit flipped in tables": (TABLES, TABLES),
    "error in the thread": ("error: RuntimeError: planted", "error: RuntimeError: planted"),
    "epoch left early, 5 times": (ALL_RIGHT, ALL_RIGHT),
    "read after fork": (ALL_RIGHT, ALL_RIGHT),
    "read after spawn": (ALL_RIGHT, ALL_RIGHT),
}


def test_every_fault_has_its_expected_outcome() -> None:
    assert set(EXPECTED) == set(FAULTS)


@pytest.mark.parametrize("skip", [False, True], ids=["error", "skip"])
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.startswith("read after")])
def test_a_fault_gives_an_error_by_name_or_right_pictures(fault: str, skip: bool, tmp_path: Path) -> None:
    found = outcome("resolute-skip" if skip else "resolute", fault, tmp_path)
    assert re.fullmatch(EXPECTED[fault][skip], str(found)), str(found)
    if not found.error and found.threads_left == 0 and not fault.startswith("epoch left"):
        assert found.right + found.wrong == 2 * NUM_SAMPLES


@pytest.mark.parametrize("fault", ["read after fork", "read after spawn"])
def test_a_child_reads_as_its_parent_does(fault: str) -> None:
    assert tell("resolute", fault, deadline_s=120) == ALL_RIGHT

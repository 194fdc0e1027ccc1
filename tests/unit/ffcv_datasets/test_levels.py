import numpy as np
import pytest

from ffcv_datasets.levels import FOOTER_BYTES, LEVEL, Footer, LevelsError, checksum, level_for, read_footer

FOOTER = Footer(num_fields=1, sides=(256, 128), levels_at=1 << 40, levels_checksum=2**64 - 1, tables_checksum=7)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_checksum_is_xxh64(data: bytes, expected: int) -> None:
    assert checksum(data) == expected


def test_checksum_sees_every_bit() -> None:
    data = bytearray(range(77))
    sums = {checksum(bytes(data))}
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        sums.add(checksum(bytes(data)))
        data[bit // 8] ^= 1 << bit % 8
    assert len(sums) == 1 + 8 * len(data)


def test_a_footer_is_read_back() -> None:
    assert len(FOOTER.to_bytes()) == FOOTER_BYTES
    assert read_footer(FOOTER.to_bytes()) == FOOTER
    assert FOOTER.num_levels == 3


def test_other_bytes_are_no_footer() -> None:
    assert read_footer(bytes(FOOTER_BYTES)) is None
    assert read_footer(bytes(range(FOOTER_BYTES))) is None


def test_a_damaged_footer_is_refused() -> None:
    whole = FOOTER.to_bytes()
    for place in range(FOOTER_BYTES):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        with pytest.raises(LevelsError, match=r"damaged|newer"):
            read_footer(bytes(damaged))


def test_a_footer_of_a_newer_version_says_so() -> None:
    newer = bytearray(FOOTER.to_bytes())
    newer[8] = 2
    with pytest.raises(LevelsError, match=r"newer Resolute \(version 2, this one reads 1\); upgrade"):
        read_footer(bytes(newer))


def level(sizes: list[tuple[int, int]]) -> np.ndarray:
    rows = np.zeros(len(sizes), LEVEL)
    rows["size"] = [height > 0 for height, _ in sizes]
    rows["height"], rows["width"] = np.transpose(sizes)
    return rows


def test_the_smallest_level_that_serves_is_read() -> None:
    levels = [level([(400, 300)] * 6), level([(200, 150)] * 6), level([(100, 75)] * 5 + [(0, 0)])]
    heights = np.array([400, 256, 255, 128, 127, 400])
    widths = np.array([300, 256, 256, 129, 300, 300])
    assert level_for(64, 64, heights, widths, levels).tolist() == [2, 2, 1, 1, 0, 1]
    assert level_for(64, 64, heights, widths, levels[:1]).tolist() == [0] * 6


def test_borders_are_exact_for_odd_sizes() -> None:
    levels = [level([(375, 500)]), level([(192, 256)])]
    for box in range(1, 376):
        serves = box * 192 >= 128 * 375 and box * 256 >= 128 * 500
        assert level_for(128, 128, np.array([box]), np.array([box]), levels).tolist() == [int(serves)]

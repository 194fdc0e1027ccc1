import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffcv_datasets.crop import Boxes, CentreView, TrainView, View, boxes

SIDES = st.integers(1, 65535)


def boxes_of(view: View, samples: list[int], heights: list[int], widths: list[int]) -> Boxes:
    return boxes(view, np.array(samples), np.array(heights, np.int32), np.array(widths, np.int32))


@given(height=SIDES, width=SIDES, sample=st.integers(0, 2**40), seed=st.integers(0, 2**64 - 1))
def test_box_lies_in_its_image(height: int, width: int, sample: int, seed: int) -> None:
    for view in (TrainView(seed, 3, 64), TrainView(seed, 3, 64, crop_ratio=(0.1, 0.2)), CentreView(64)):
        box = boxes_of(view, [sample], [height], [width])
        assert box.height[0] >= 1
        assert box.width[0] >= 1
        assert 0 <= box.top[0] <= height - box.height[0]
        assert 0 <= box.left[0] <= width - box.width[0]


def test_box_depends_on_nothing_but_seed_epoch_sample_and_size() -> None:
    samples, heights, widths = [9, 4, 9, 7], [300, 200, 300, 50], [400, 100, 400, 500]
    together = boxes_of(TrainView(1, 2, 96), samples, heights, widths)
    for i in range(4):
        alone = boxes_of(TrainView(1, 2, 160), samples[i : i + 1], heights[i : i + 1], widths[i : i + 1])
        for name in ("top", "left", "height", "width", "flip"):
            assert getattr(alone, name)[0] == getattr(together, name)[i]


def test_boxes_are_the_ones_of_the_first_release() -> None:
    # A run that is resumed with a later version must see the images that it would have seen.
    box = boxes_of(TrainView(20, 3, 96), [0, 1, 2], [375, 500, 333], [500, 375, 500])
    rows = np.stack([box.top, box.left, box.height, box.width, box.flip]).T.tolist()
    assert rows == [[5, 4, 369, 460, 1], [95, 56, 343, 316, 0], [37, 296, 207, 191, 1]]


def test_another_seed_or_epoch_gives_other_boxes() -> None:
    sizes = [500] * 64
    first, *others = (
        boxes_of(TrainView(seed, epoch, 96), list(range(64)), sizes, sizes)
        for seed, epoch in [(0, 0), (1, 0), (2**32, 0), (0, 1)]
    )
    for other in others:
        assert (first.height != other.height).mean() > 0.9
        assert (first.flip != other.flip).any()


@pytest.mark.parametrize(("height", "width", "expected"), [(10, 1000, (10, 13)), (1000, 10, (13, 10)), (7, 8, (7, 8))])
def test_when_no_attempt_fits_the_largest_central_box_is_taken(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    # A box as large as the image fits only an image whose ratio is drawn exactly.
    box = boxes_of(TrainView(0, 0, 8, crop_scale=(1, 1)), [0], [height], [width])
    assert (box.height[0], box.width[0]) == expected
    assert (box.top[0], box.left[0]) == ((height - expected[0]) // 2, (width - expected[1]) // 2)


def test_centre_view_is_the_centre_square_of_the_shorter_side() -> None:
    box = boxes_of(CentreView(224), [0, 1], [375, 256], [500, 256])
    assert box.height.tolist() == box.width.tolist() == [328, 224]
    assert (box.top.tolist(), box.left.tolist()) == ([23, 16], [86, 16])
    assert not box.flip.any()


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_flip_has_its_probability(probability: float) -> None:
    view = TrainView(0, 0, 8, flip_probability=probability)
    flips = boxes_of(view, list(range(4000)), [9] * 4000, [9] * 4000).flip
    assert abs(flips.mean() - probability) < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"epoch": -1},
        {"resolution": 0},
        {"crop_scale": (0, 1)},
        {"crop_scale": (0.5, 0.4)},
        {"crop_scale": (0.5, 1.1)},
        {"crop_ratio": (0, 1)},
        {"flip_probability": 1.5},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    arguments: dict[str, object] = {"seed": 0, "epoch": 0, "resolution": 8} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainView(**arguments)  # type: ignore[arg-type]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ffcv_datasets.crop import Boxes, CentreView, TrainView, boxes
from ffcv_datasets.target_crop import NO_BOX, crop_boxes, crop_masks


def crop(top: int, left: int, height: int, width: int, *, flip: bool = False) -> Boxes:
    one = np.ones(1, np.int32)
    return Boxes(top * one, left * one, height * one, width * one, one == int(flip))


def rows(*boxes_: tuple[float, ...], num_rows: int = 3) -> NDArray[np.float32]:
    """(1, num_rows, 5)"""
    padded = np.full((1, num_rows, 5), NO_BOX, np.float32)
    padded[0, : len(boxes_)] = boxes_
    return padded


def test_a_mask_keeps_its_values_whatever_the_size() -> None:
    mask = np.array([[0, 7], [255, 9]], np.uint8)
    assert crop_masks([mask], crop(0, 0, 2, 2), 4, 4)[0].tolist() == [
        [0, 0, 7, 7],
        [0, 0, 7, 7],
        [255, 255, 9, 9],
        [255, 255, 9, 9],
    ]
    assert crop_masks([mask], crop(1, 0, 1, 2, flip=True), 1, 2)[0].tolist() == [[9, 255]]
    large = np.arange(81, dtype=np.uint8).reshape(9, 9)
    assert crop_masks([large], crop(0, 0, 9, 9), 3, 3)[0].tolist() == [[10, 13, 16], [37, 40, 43], [64, 67, 70]]


def test_masks_of_different_sizes_make_one_batch() -> None:
    masks: list[NDArray[Any]] = [np.full((5, 9), 1, np.uint8), np.full((70, 3), 300, np.uint16)]
    view = TrainView(0, 0, 8)
    crops = boxes(view, np.arange(2), np.array([5, 70], np.int32), np.array([9, 3], np.int32))
    cropped = crop_masks(masks, crops, 8, 8)
    assert cropped.shape == (2, 8, 8)
    assert cropped.dtype == np.uint16
    assert (cropped[0] == 1).all()
    assert (cropped[1] == 300).all()
    out = np.empty((2, 8, 8), np.int64)
    assert crop_masks(masks, crops, 8, 8, out) is out
    assert (out == cropped).all()


def test_boxes_are_moved_scaled_and_clipped() -> None:
    targets = rows((10, 20, 30, 40, 5), (0, 0, 12, 100, 6))
    assert crop_boxes(targets, crop(20, 10, 40, 20), 80, 80)[0].tolist() == [
        [0, 0, 80, 40, 5],
        [0, 0, 8, 80, 6],
        [NO_BOX] * 5,
    ]


def test_a_mirrored_crop_mirrors_the_boxes() -> None:
    targets = rows((10, 20, 15, 40, 5))
    assert crop_boxes(targets, crop(20, 10, 40, 20, flip=True), 80, 80)[0, 0].tolist() == [60, 0, 80, 40, 5]


def test_boxes_beside_the_crop_are_gone_and_the_others_move_up() -> None:
    targets = rows((0, 0, 5, 5, 1), (5, 5, 10, 10, 2), (6, 6, 8, 8, 3))
    cropped = crop_boxes(targets, crop(5, 5, 5, 5), 5, 5)[0]
    assert cropped.tolist() == [[0, 0, 5, 5, 2], [1, 1, 3, 3, 3], [NO_BOX] * 5]
    assert targets[0, 0].tolist() == [0, 0, 5, 5, 1]  # what was given is as it was


@given(
    seed=st.integers(0, 2**32), resolution=st.sampled_from([1, 7, 32, 100]), sides=st.tuples(*[st.integers(2, 60)] * 2)
)
def test_a_box_holds_the_pixels_of_its_mask(seed: int, resolution: int, sides: tuple[int, int]) -> None:
    """A pixel of the cropped mask belongs to the object if and only if its centre lies in the cropped box."""
    height, width = sides
    generator = np.random.default_rng(seed)
    left, right = np.sort(generator.choice(width + 1, 2, replace=False))
    top, bottom = np.sort(generator.choice(height + 1, 2, replace=False))
    mask = np.zeros(sides, np.uint8)
    mask[top:bottom, left:right] = 1
    for view in (TrainView(seed, 3, resolution), CentreView(resolution)):
        crops = boxes(view, np.array([5]), np.array([height], np.int32), np.array([width], np.int32))
        seen = crop_masks([mask], crops, resolution, resolution)[0]
        box = crop_boxes(rows((left, top, right, bottom, 0)), crops, resolution, resolution)[0, 0]
        centres = np.arange(resolution) + 0.5
        # Where an edge runs through a centre, float32 may put it on either side.
        sure_x = np.abs(centres - box[0]).clip(max=np.abs(centres - box[2])) > 1e-3
        sure_y = np.abs(centres - box[1]).clip(max=np.abs(centres - box[3])) > 1e-3
        inside_x, inside_y = (box[0] < centres) & (centres < box[2]), (box[1] < centres) & (centres < box[3])
        is_inside = inside_y[:, None] & inside_x[None, :] if box[4] != NO_BOX else np.zeros((resolution,) * 2, bool)
        sure = sure_y[:, None] & sure_x[None, :]
        assert (seen.astype(bool) == is_inside)[sure].all()


@pytest.mark.parametrize("num", [0, 1])
def test_no_samples_are_no_masks(num: int) -> None:
    none = np.zeros(num, np.int32)
    masks = [np.zeros((1, 1), np.uint8)] * num
    assert crop_masks(masks, Boxes(none, none, none + 1, none + 1, none > 0), 2, 2).shape == (num, 2, 2)

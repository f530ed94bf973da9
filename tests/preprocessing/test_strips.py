"""What is done to many pages at a time: no canvas of a strip sees another."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.preprocessing.strips import components, morph, spread


def strip(*, side: int = 16, count: int = 9, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, count, side)).astype(np.uint8)


@pytest.mark.parametrize("operation", [cv2.MORPH_CLOSE, cv2.MORPH_OPEN, cv2.MORPH_DILATE])
def test_a_canvas_is_filtered_as_if_it_were_alone(operation: int) -> None:
    some = strip()
    together = morph(some, 5, operation)
    for canvas in range(some.shape[1]):
        alone = cv2.morphologyEx(np.ascontiguousarray(some[:, canvas]), operation, np.ones((5, 5), np.uint8))
        np.testing.assert_array_equal(together[:, canvas], alone)


def test_a_component_belongs_to_one_canvas_and_has_its_box_and_area() -> None:
    inked = np.zeros((8, 3, 8), np.bool_)
    inked[2:4, 0, 5:8] = True  # at the right edge, beside the next one at its left edge
    inked[2:4, 1, 0:2] = True
    inked[[5, 6], 1, [3, 4]] = True  # joined by a corner
    found = components(inked)
    assert found.owner[1:].tolist() == [0, 1, 1]
    assert found.box[1:].tolist() == [[5, 2, 8, 4], [0, 2, 2, 4], [3, 5, 5, 7]]
    assert found.area[1:].tolist() == [6, 4, 2]
    assert ((found.labels > 0) == inked).all()


def test_a_canvas_of_dots_in_a_long_strip_has_the_components_that_it_has_alone() -> None:
    count = 700  # they are more than 65,535
    inked = np.zeros((28, count, 28), np.bool_)
    inked[::2, :, ::2] = True
    found = components(inked)
    assert found.labels.max() == 14 * 14 * count
    assert (np.bincount(found.owner[1:]) == 14 * 14).all()
    assert (found.owner[found.labels[::2, :, ::2]] == np.arange(count)[:, None]).all()
    assert (found.area[1:] == 1).all()


def test_what_is_spread_has_the_value_of_each_canvas_in_all_its_columns() -> None:
    values = np.array([3, 1, 2], np.uint8)
    assert spread(values, 4).tolist() == [[3] * 4, [1] * 4, [2] * 4]
    assert spread(values, 4).dtype == np.uint8


def test_a_component_is_at_the_edge_of_its_page_and_not_of_its_canvas() -> None:
    inked = np.zeros((8, 2, 8), np.bool_)
    inked[2, :, 2:5] = True
    found = components(inked)
    assert found.at_edge(np.array([[8, 8], [8, 5]]))[1:].tolist() == [False, True]

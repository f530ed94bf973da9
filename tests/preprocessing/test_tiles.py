"""Many small pages at a time: no tile of a stack sees another."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.preprocessing.tiles import TILE_SIDES, components, morph, repeat_per_column, stack_tiles


def stack(*, side: int = 16, count: int = 9, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, count, side)).astype(np.uint8)


@pytest.mark.parametrize("operation", [cv2.MORPH_CLOSE, cv2.MORPH_DILATE])
def test_a_tile_is_filtered_as_if_it_were_alone(operation: int) -> None:
    some = stack()
    together = morph(some, 5, operation)
    for tile in range(some.shape[1]):
        alone = cv2.morphologyEx(np.ascontiguousarray(some[:, tile]), operation, np.ones((5, 5), np.uint8))
        np.testing.assert_array_equal(together[:, tile], alone)


def test_a_component_belongs_to_one_tile_and_has_its_box_and_area() -> None:
    inked = np.zeros((8, 3, 8), np.bool_)
    inked[2:4, 0, 5:8] = True  # at the right edge, beside the next one at its left edge
    inked[2:4, 1, 0:2] = True
    inked[[5, 6], 1, [3, 4]] = True  # joined by a corner
    found = components(inked)
    assert found.owner[1:].tolist() == [0, 1, 1]
    assert found.box[1:].tolist() == [[5, 2, 8, 4], [0, 2, 2, 4], [3, 5, 5, 7]]
    assert found.area[1:].tolist() == [6, 4, 2]
    assert ((found.labels > 0) == inked).all()


def test_a_tile_of_dots_in_a_long_stack_has_the_components_that_it_has_alone() -> None:
    count = 700  # they are more than 65,535
    inked = np.zeros((28, count, 28), np.bool_)
    inked[::2, :, ::2] = True
    found = components(inked)
    assert found.labels.max() == 14 * 14 * count
    assert (np.bincount(found.owner[1:]) == 14 * 14).all()
    assert (found.owner[found.labels[::2, :, ::2]] == np.arange(count)[:, None]).all()
    assert (found.area[1:] == 1).all()


def test_what_is_repeated_per_column_has_the_value_of_each_tile_in_all_its_columns() -> None:
    values = np.array([3, 1, 2], np.uint8)
    assert repeat_per_column(values, 4).tolist() == [[3] * 4, [1] * 4, [2] * 4]
    assert repeat_per_column(values, 4).dtype == np.uint8


def test_a_component_is_at_the_edge_of_its_page_and_not_of_its_tile() -> None:
    inked = np.zeros((8, 2, 8), np.bool_)
    inked[2, :, 2:5] = True
    found = components(inked)
    assert found.at_edge(np.array([[8, 8], [8, 5]]))[1:].tolist() == [False, True]


def page(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)


def test_a_page_stands_at_the_top_left_of_its_tile_and_its_last_row_and_column_are_repeated() -> None:
    some = [page(9, 16), page(16, 3), page(9, 16)[::-1], page(16, 16)]
    tiles, page_sizes = stack_tiles(some, 16)
    assert tiles.shape == (16, 4, 16)
    assert page_sizes.tolist() == [[9, 16], [16, 3], [9, 16], [16, 16]]
    for row, one in enumerate(some):
        height, width = one.shape
        np.testing.assert_array_equal(tiles[:, row], np.pad(one, ((0, 16 - height), (0, 16 - width)), "edge"))


def test_tile_sides_rise_so_that_the_smallest_that_holds_a_page_is_found() -> None:
    assert list(TILE_SIDES) == sorted(TILE_SIDES)

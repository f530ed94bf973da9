"""Small pages on canvases, and large ones reduced."""

import cv2
import numpy as np
import pytest

from batchdigits.preprocessing.strips import CANVAS_SIDES, strip_of
from batchdigits.preprocessing.thumbnails import fit, halved


def page(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)


def test_a_page_stands_at_the_top_left_of_its_canvas_and_its_last_row_and_column_are_repeated() -> None:
    some = [page(9, 16), page(16, 3), page(9, 16)[::-1], page(16, 16)]
    strip, extents = strip_of(some, 16)
    assert strip.shape == (16, 4, 16)
    assert extents.tolist() == [[9, 16], [16, 3], [9, 16], [16, 16]]
    for row, one in enumerate(some):
        height, width = one.shape
        np.testing.assert_array_equal(strip[:, row], np.pad(one, ((0, 16 - height), (0, 16 - width)), "edge"))


@pytest.mark.parametrize("shape", [(192, 100), (191, 100), (1, 900), (700, 1), (385, 385)])
def test_a_page_is_halved_until_it_is_less_than_twice_as_long_as_the_side(shape: tuple[int, int]) -> None:
    small = halved(page(*shape), 96)
    assert max(small.shape) < 192 or min(small.shape) == 1
    times = max(shape) // max(small.shape)
    assert small.shape == (max(1, shape[0] // times), max(1, shape[1] // times))


def test_halving_is_the_mean_of_four_pixels() -> None:
    whole = page(200, 120)
    np.testing.assert_array_equal(halved(whole, 96), cv2.resize(whole, (60, 100), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("shape", [(96, 96), (97, 20), (500, 333), (2000, 10)])
def test_a_page_that_is_fitted_is_as_long_as_the_side_at_most(shape: tuple[int, int]) -> None:
    small = fit(page(*shape), 96)
    assert max(small.shape) == 96
    assert min(small.shape) == max(1, round(min(shape) * 96 / max(shape)))


def test_canvases_rise_so_that_the_smallest_that_holds_a_page_is_found() -> None:
    assert list(CANVAS_SIDES) == sorted(CANVAS_SIDES)

"""What the ink finder sees of a page: 64×64 cells of the mean, the darkest and the lightest pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.preprocessing.looks import Square, around, cover, look, whole

SIDE = 64
BEYOND = [128, 255, 0]
MEAN, DARKEST, LIGHTEST = range(3)


def seen(page: np.ndarray, square: Square | None = None) -> np.ndarray:
    found = look(page, square or whole(page))
    return np.asarray(getattr(found, "cells", found))


def paper(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(200, 0.4, (height, width)).round().astype(np.uint8)


@settings(deadline=None, max_examples=80)
@given(height=st.integers(1, 1024), width=st.integers(1, 1024), seed=st.integers(0, 9))
def test_a_page_of_any_size_is_64_by_64_by_3_and_its_darkest_no_lighter_than_its_lightest(
    height: int, width: int, seed: int
) -> None:
    page = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    cells = seen(page)
    assert (cells.shape, cells.dtype) == ((SIDE, SIDE, 3), np.uint8)
    within = (cells != BEYOND).any(2)
    assert (cells[within][:, DARKEST] <= cells[within][:, MEAN]).all()
    assert (cells[within][:, MEAN] <= cells[within][:, LIGHTEST]).all()
    assert within.any(1).sum() == pytest.approx(max(1, SIDE * height / max(height, width)), abs=1)
    assert within.any(0).sum() == pytest.approx(max(1, SIDE * width / max(height, width)), abs=1)


@pytest.mark.parametrize("at", [100, 511, 777])
def test_a_dark_line_of_one_pixel_on_a_page_of_1024_is_seen_in_the_darkest_channel(at: int) -> None:
    page = paper(1024, 1024)
    page[:, at] = 60
    cells = seen(page).astype(int)
    column = at // 16
    others = [other for other in range(SIDE) if other != column]
    assert cells[:, column, DARKEST].max() < cells[:, others, DARKEST].min() - 40
    assert cells[:, column, LIGHTEST].max() >= cells[:, others, LIGHTEST].min()


def test_a_light_line_of_one_pixel_is_seen_in_the_lightest_channel() -> None:
    page = 255 - paper(1024, 800)
    page[300] = 250
    cells = seen(page).astype(int)
    row = 300 // 16
    left = (1024 - 800) // 2 // 16
    assert cells[row, left:-left, LIGHTEST].min() > np.delete(cells[:, left:-left, LIGHTEST], row, 0).max() + 40


def test_beyond_the_page_the_darkest_is_white_and_the_lightest_black_which_no_page_is() -> None:
    for shape in ((100, 60), (60, 100), (900, 500), (20, 9)):
        page = paper(*shape)
        cells = seen(page)
        within = (cells != BEYOND).any(2)
        rows, columns = np.flatnonzero(within.any(1)), np.flatnonzero(within.any(0))
        assert within[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0 < (~within).mean() < 0.6
        middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
        cell = max(1, 64 / max(shape))
        assert middle == pytest.approx((32, 32), abs=cell)


@pytest.mark.parametrize("brightness", [0.3, 0.6, 1.0])
def test_a_look_does_not_depend_on_how_bright_or_contrasted_the_page_is(brightness: float) -> None:
    rng = np.random.default_rng(4)
    page = np.full((300, 260), 230.0)
    page[80:220, 100:130] = 60
    page += rng.normal(0, 1, page.shape)
    bright, other = seen(page.round().astype(np.uint8)), seen((page * brightness).round().astype(np.uint8))
    difference = np.abs(bright.astype(int) - other)
    assert difference[..., MEAN].max() <= 6
    assert np.median(difference) <= 1


def test_an_even_page_is_even_and_its_noise_is_not_blown_up() -> None:
    even = seen(np.full((120, 120), 77, np.uint8))
    assert np.ptp(even) == 0
    noisy = np.full((640, 640), 128, np.uint8) + np.random.default_rng(0).integers(0, 2, (640, 640), np.uint8)
    assert np.ptp(seen(noisy).astype(int)) <= 20


def test_a_page_of_fewer_pixels_than_cells_is_enlarged_and_all_three_channels_agree() -> None:
    page = np.full((16, 16), 220, np.uint8)
    page[4:12, 7:9] = 30
    cells = seen(page)
    assert (cells[..., DARKEST] == cells[..., LIGHTEST]).all()
    assert (cells[..., MEAN] == cells[..., DARKEST]).all()
    dark = cells[..., MEAN] < 128
    rows, columns = (np.flatnonzero(dark.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1]) == pytest.approx((16, 47), abs=3)  # a pixel is 4 cells, and its edge soft
    assert (columns[0], columns[-1]) == pytest.approx((28, 35), abs=3)


def test_a_closer_look_shows_a_part_larger_and_may_reach_beyond_the_page() -> None:
    page = paper(400, 400)
    page[30:90, 40:60] = 20
    square = around((40, 30, 60, 90), 0.5)
    assert square == Square(-10, 0, 120)
    cells = seen(page, square)
    dark = cells[..., MEAN] < 100
    assert np.flatnonzero(dark.any(1)).tolist() == pytest.approx(list(range(16, 48)), abs=1)
    assert np.ptp(np.flatnonzero(dark.any(0))) + 1 == pytest.approx(SIDE / 6, abs=1)
    assert (cells[:, :5] == BEYOND).all()
    assert (cells[:, 6:] != BEYOND).any(2).all()


def test_the_ink_of_a_look_lies_where_the_look_shows_it_and_nowhere_beyond_the_page() -> None:
    for shape in ((30, 20), (64, 64), (500, 333), (333, 1000)):
        ink = np.zeros(shape, np.uint8)
        ink[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 255
        page = np.where(ink > 0, 40, 210).astype(np.uint8)
        covered, cells = cover(ink, whole(page)), seen(page)
        assert (covered.shape, covered.dtype) == ((SIDE, SIDE), np.uint8)
        dark = (cells[..., MEAN] < 100) & (cells != BEYOND).any(2)
        assert (covered[dark] > 60).mean() > 0.9
        assert (covered[~dark] < 190).mean() > 0.99
        assert (covered[(cells == BEYOND).all(2)] == 0).all()
        assert covered.sum() / 255 / SIDE**2 == pytest.approx((ink > 0).sum() / max(shape) ** 2, rel=0.1)

"""Thumbnails: small pictures that fit, whatever the page."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from batchdigits.preprocessing.thumbnails import CHUNK, MOST_BYTES, SIDE, fit, halve_until, png
from tests.sample_pages import digits, on_page


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_picture_of_any_page_is_small_in_both_senses_and_has_its_shape(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    small = fit(noise, SIDE)
    assert max(small.shape) <= SIDE
    assert max(small.shape) == min(max(height, width), SIDE)
    data = png(small)
    assert len(data) <= MOST_BYTES
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.ndim == 2
    assert shown.shape[0] / small.shape[0] == pytest.approx(shown.shape[1] / small.shape[1], abs=1 / min(shown.shape))


@pytest.mark.parametrize("size", [(28, 28), (96, 191), (192, 97), (600, 450)])
def test_a_page_that_was_halved_before_has_the_same_bytes(size: tuple[int, int]) -> None:
    page = cv2.resize(digits(60)[4], size, interpolation=cv2.INTER_CUBIC)
    small = halve_until(page, SIDE)
    assert max(small.shape) < 2 * SIDE
    assert png(page) == png(small) == png(fit(page, SIDE))


def test_a_picture_of_a_small_page_is_the_page_in_16_levels() -> None:
    page = digits(60)[3]
    assert (page.min(), page.max()) == (0, 255)
    shown = cv2.imdecode(np.frombuffer(png(fit(page, SIDE)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == page.shape
    assert np.abs(shown.astype(int) - page).max() <= 8
    assert len(np.unique(shown)) <= 16


@pytest.mark.parametrize("depth", [20, 10])
def test_faint_ink_can_be_seen(depth: int) -> None:
    page = np.full((60, 60), 240, np.uint8)
    page[20:40, 28:32] -= np.uint8(depth)
    shown = cv2.imdecode(np.frombuffer(png(page), np.uint8), cv2.IMREAD_UNCHANGED).astype(int)
    assert shown[5, 5] - shown[30, 30] > 80


def test_the_grain_of_even_paper_stays_faint() -> None:
    page = np.random.default_rng(1).integers(238, 242, (60, 60)).astype(np.uint8)
    shown = cv2.imdecode(np.frombuffer(png(page), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.ptp(shown) < 60


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def chunk(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The four numbers, and the picture of the whole page."""
    size, name = struct.unpack(">I4s", data[33:41])
    assert name == CHUNK
    return struct.unpack(">4H", data[41:49]), data[49 : 41 + size]


def test_a_small_digit_is_shown_by_itself_with_its_place_on_the_page() -> None:
    page = on_page(digits(60)[3], 1000, 700, top=100, left=600)
    box = (600 / 700, 0.1, 628 / 700, 0.128)
    data = png(page, box)
    assert len(data) <= MOST_BYTES
    shown = decoded(data)
    assert (shown < 128).mean() > 0.05  # of the page it is less than a thousandth
    assert max(shown.shape) < 60
    numbers, whole = chunk(data)
    left, top, right, bottom = (number / 65535 for number in numbers)
    assert left < box[0] < box[2] < right <= 1
    assert top < box[1] < box[3] < bottom < 0.2
    assert decoded(whole).shape == (48, 33)
    Image.open(io.BytesIO(data)).load()  # other programs pass over the chunk


def test_more_pixels_are_asked_for_where_a_small_digit_has_few() -> None:
    full = on_page(digits(60)[3], 1600, 1600, top=400, left=400)
    half = cv2.resize(full, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    box = (0.25, 0.25, 0.2675, 0.2675)
    coarse, fine = decoded(png(half, box)), decoded(png(half, box, lambda: full))
    assert max(fine.shape) > 1.8 * max(coarse.shape)


@pytest.mark.parametrize(("share", "is_told"), [(0.6, False), (0.4, True)])
def test_a_page_that_is_half_digit_is_shown_whole(share: float, is_told: bool) -> None:
    data = png(on_page(digits(60)[3]), (0.1, 0.1, 0.1 + share, 0.1 + share))
    assert decoded(data).shape == (56, 56)
    assert (data[37:41] == CHUNK) == is_told
    if is_told:
        assert chunk(data)[1] == b""


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 200), st.integers(1, 200))
def test_any_box_on_any_page_gives_a_picture(edges: list[float], height: int, width: int) -> None:
    left, right, top, bottom = *sorted(edges[:2]), *sorted(edges[2:])
    data = png(np.full((height, width), 200, np.uint8), (left, top, right, bottom))
    assert decoded(data).size


def test_the_same_picture_has_the_same_bytes() -> None:
    assert png(digits(60)[5]) == png(digits(60)[5].copy())


def noisy(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)


@pytest.mark.parametrize("shape", [(192, 100), (191, 100), (1, 900), (700, 1), (385, 385)])
def test_a_page_is_halved_until_it_is_less_than_twice_as_long_as_the_side(shape: tuple[int, int]) -> None:
    small = halve_until(noisy(*shape), 96)
    assert max(small.shape) < 192 or min(small.shape) == 1
    times = max(shape) // max(small.shape)
    assert small.shape == (max(1, shape[0] // times), max(1, shape[1] // times))


def test_halving_is_the_mean_of_four_pixels() -> None:
    whole = noisy(200, 120)
    np.testing.assert_array_equal(halve_until(whole, 96), cv2.resize(whole, (60, 100), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("shape", [(96, 96), (97, 20), (500, 333), (2000, 10)])
def test_a_page_that_is_fitted_is_as_long_as_the_side_at_most(shape: tuple[int, int]) -> None:
    small = fit(noisy(*shape), 96)
    assert max(small.shape) == 96
    assert min(small.shape) == max(1, round(min(shape) * 96 / max(shape)))

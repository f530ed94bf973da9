"""Thumbnails: small pictures that fit, whatever the page."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.preprocessing.thumbnails import MOST_BYTES, SIDE, halved, png, reduced
from tests.digits import digits


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_picture_of_any_page_is_small_in_both_senses_and_has_its_shape(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    small = reduced(noise)
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
    small = halved(page, SIDE)
    assert max(small.shape) < 2 * SIDE
    assert png(page) == png(small) == png(reduced(page))


def test_a_picture_of_a_small_page_is_the_page_in_16_levels() -> None:
    page = digits(60)[3]
    assert (page.min(), page.max()) == (0, 255)
    shown = cv2.imdecode(np.frombuffer(png(reduced(page)), np.uint8), cv2.IMREAD_UNCHANGED)
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


def test_the_same_picture_has_the_same_bytes() -> None:
    assert png(digits(60)[5]) == png(digits(60)[5].copy())

"""Drift: the population stability index of a run's confidences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.inference import drift
from batchdigits.inference.drift import DRIFTED, EDGES, LEAST_ROWS, histogram, index, stability_index

counts = st.lists(st.integers(0, 10_000), min_size=10, max_size=10).filter(any)


def test_confidences_are_counted_by_bins_that_begin_at_their_edge() -> None:
    confidence = np.array([0.1, 0.4999, 0.5, 0.9, 0.9989, 0.999, 1.0, np.nan])
    assert histogram(confidence).tolist() == [2, 1, 0, 1, 0, 0, 0, 0, 1, 2]
    assert len(EDGES) + 1 == 10


def test_the_index_is_that_of_the_textbook() -> None:
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert stability_index([600, 400], [50, 50]) == pytest.approx(expected)


@given(counts, counts)
def test_the_index_is_never_negative_and_0_where_the_shares_agree(now: list[int], before: list[int]) -> None:
    assert stability_index(now, before) >= -1e-12
    assert stability_index(now, now) == pytest.approx(0)


def test_a_run_like_the_reference_has_not_drifted_and_one_that_is_much_less_sure_has() -> None:
    reference = [40, 120, 90, 100, 130, 130, 150, 250, 220, 7000]
    like = np.random.default_rng(1).multinomial(600, np.array(reference) / sum(reference))
    found, other = index(like, reference), index(np.array([300, 200, 100, 50, 50, 50, 50, 50, 50, 100]), reference)
    assert found is not None and found < 0.1  # noqa: PT018  (mypy follows this)
    assert other is not None and other > DRIFTED  # noqa: PT018


def test_few_rows_or_no_reference_tell_nothing() -> None:
    assert index(np.array([LEAST_ROWS - 1] + [0] * 9), [10] * 10) is None
    assert index(np.array([LEAST_ROWS] + [0] * 9), [10] * 10) is not None
    assert index(np.array([LEAST_ROWS] + [0] * 9), ()) is None


def test_rows_are_worse_where_they_drifted_to_low_confidences() -> None:
    reference = [10, 10, 20, 60, 100, 100, 100, 100, 100, 400]
    lower, higher = np.array(reference[::-1]), np.array([0] * 9 + [1000])
    assert drift.is_worse(lower, reference)
    assert not drift.is_worse(higher, reference)
    assert drift.index(higher, reference) > drift.DRIFTED
    assert not drift.is_worse(np.array(reference), reference)
    assert not drift.is_worse(lower // 100, reference)  # too few
    assert not drift.is_worse(lower, [])

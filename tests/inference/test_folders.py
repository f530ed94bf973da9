"""A folder's own threshold: it follows the mean doubt of the digits that pass, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.inference.folders import confidence_counts, doubt_table, mean_doubt, own_threshold
from batchdigits.inference.thresholds import DOUBTS, OWN_THRESHOLDS

confidences = st.lists(st.integers(1000, 10_000), min_size=1, max_size=60).map(
    lambda steps: np.array(steps, np.float64) / 10_000
)


def test_confidences_are_counted_by_their_four_decimals_and_nan_nowhere() -> None:
    counted = confidence_counts(np.array([1.0, 0.9999, 0.9999, 0.1, np.nan]))
    assert counted.shape == (10_001,)
    assert (counted[10_000], counted[9999], counted[1000], counted.sum()) == (1, 2, 1, 4)


@given(confidences, st.sampled_from(OWN_THRESHOLDS))
def test_the_mean_doubt_is_that_of_what_passes(confidence: np.ndarray, threshold: float) -> None:
    passed = confidence[confidence >= threshold]
    expected = float((1 - passed).mean()) if len(passed) else 0.0
    assert mean_doubt(confidence_counts(confidence), threshold) == pytest.approx(expected, abs=1e-12)


@given(confidences, st.sampled_from(DOUBTS))
def test_the_own_threshold_is_the_loosest_that_keeps_the_doubt(confidence: np.ndarray, doubt: float) -> None:
    counted = confidence_counts(confidence)
    found = own_threshold(counted, doubt)
    kept = [threshold for threshold in OWN_THRESHOLDS if mean_doubt(counted, threshold) <= doubt]
    assert found == (min(kept) if kept else None)


def test_a_folder_of_clear_digits_has_a_looser_threshold_than_one_of_doubtful_digits() -> None:
    clear = confidence_counts(np.array([0.9999] * 900 + [0.9] * 10))
    doubtful = confidence_counts(np.array([0.9999] * 300 + [0.9] * 300))
    assert own_threshold(clear, 0.002) == 0.5
    assert own_threshold(doubtful, 0.002) == 0.905
    assert own_threshold(confidence_counts(np.array([0.996] * 100)), 0.002) is None


def test_each_doubt_counts_what_its_own_threshold_lets_pass() -> None:
    confidence = np.array([0.9999] * 300 + [0.9] * 300 + [np.nan])
    right = np.array([True] * 598 + [False] * 3)
    table = doubt_table(confidence, right)
    assert [counts.doubt for counts in table] == list(DOUBTS)
    assert (table[0].passed, table[0].wrong) == (300, 0)
    assert (table[-1].passed, table[-1].wrong) == (600, 2)
    assert doubt_table(np.array([0.996] * 100), np.ones(100, np.bool_))[0].passed == 0

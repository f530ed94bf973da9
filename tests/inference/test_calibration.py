"""Risk: a threshold is given only where the counts prove its target, and a refusal says what would."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.errors import UsageError
from batchdigits.inference.calibration import (
    LEVEL,
    STRICTEST,
    THRESHOLDS,
    ThresholdCounts,
    least_passing,
    loosest_threshold,
    probability_of_at_most,
    strictest_threshold,
    threshold_table,
)


def test_the_thresholds_go_from_strict_to_loose_and_the_last_lets_all_pass() -> None:
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS), reverse=True)
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (0.9999, 0.1)
    assert all(round(number, 4) == number for number in THRESHOLDS)


def test_what_passes_is_counted_with_what_is_wrong_of_it() -> None:
    confidence = np.array([1.0, 0.9999, 0.9998, 0.5, 0.1, np.nan])
    right = np.array([True, False, True, False, True, False])
    counted = {risk.threshold: (risk.passed, risk.wrong) for risk in threshold_table(confidence, right)}
    assert (counted[0.9999], counted[0.9998], counted[0.5], counted[0.1]) == ((2, 1), (3, 1), (4, 2), (5, 2))


@pytest.mark.parametrize(
    ("wrong", "passed", "error", "expected"),
    [(0, 10, 0.5, 0.5**10), (1, 3, 0.25, 0.84375), (3, 3, 0.2, 1.0), (0, 598, 0.005, 0.995**598)],
)
def test_the_binomial_probability_is_the_textbook_s(wrong: int, passed: int, error: float, expected: float) -> None:
    assert probability_of_at_most(wrong, passed, error) == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 60), st.floats(0.001, 0.5), st.data())
def test_the_binomial_probability_is_the_sum_of_its_terms(passed: int, error: float, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, passed))
    terms = [math.comb(passed, k) * error**k * (1 - error) ** (passed - k) for k in range(wrong + 1)]
    assert probability_of_at_most(wrong, passed, error) == pytest.approx(min(1.0, sum(terms)), rel=1e-9)


@pytest.mark.parametrize(("target", "digits"), [(0.005, 598), (0.001, 2995), (0.05, 59)])
def test_so_many_digits_without_a_mistake_prove_a_target_and_one_less_does_not(target: float, digits: int) -> None:
    assert least_passing(target) == digits
    assert probability_of_at_most(0, digits, target) <= LEVEL < probability_of_at_most(0, digits - 1, target)


def test_the_loosest_proven_threshold_is_given_and_the_sequence_ends_at_the_first_that_fails() -> None:
    risks = [
        ThresholdCounts(0.99, 100, 0),
        ThresholdCounts(0.9, 2000, 3),
        ThresholdCounts(0.8, 2400, 4),
        ThresholdCounts(0.7, 2500, 40),
        ThresholdCounts(0.6, 4000, 41),
    ]
    assert loosest_threshold(0.005, risks) == 0.8  # and 0.6, which would do, comes after one that fails
    assert loosest_threshold(0.05, risks) == 0.6


def test_the_sequence_begins_where_half_of_the_digits_pass_whatever_the_target() -> None:
    risks = [ThresholdCounts(0.999, 700, 2), ThresholdCounts(0.99, 3000, 2), ThresholdCounts(0.9, 5000, 400)]
    assert (
        loosest_threshold(0.005, risks) == loosest_threshold(0.003, risks) == 0.99
    )  # 700 with 2 mistakes would end it


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.005, 0.01, 0.05]))
def test_a_stricter_target_never_has_a_looser_threshold(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(1 - rng.exponential(0.02, 5000), 4).clip(0.1, 1)
    risks = threshold_table(confidence, rng.random(5000) < confidence)
    found = []
    for asked in (target, target * 2):
        try:
            found.append(loosest_threshold(asked, risks))
        except UsageError:
            found.append(2.0)
    assert found[0] >= found[1]


def test_a_true_error_above_the_target_is_seldom_accepted() -> None:
    """The level is kept: of 400 sets whose every digit is wrong with 0.6%, few pass for 0.5%."""
    rng = np.random.default_rng(7)
    accepted = 0
    for _ in range(400):
        confidence = np.round(1 - rng.exponential(0.05, 4000), 4).clip(0.1, 1)
        try:
            loosest_threshold(0.005, threshold_table(confidence, rng.random(4000) > 0.006))
            accepted += 1
        except UsageError:
            pass
    assert accepted / 400 <= LEVEL + 0.025  # two standard errors


@pytest.mark.parametrize(
    ("risks", "words"),
    [
        ([], "of its surest 0 digits 0 are wrong, and it takes about 598 at that rate"),
        ([ThresholdCounts(0.9, 500, 0)], "of its surest 500 digits 0 are wrong, and it takes about 598 at that rate"),
        (
            [ThresholdCounts(0.9, 1000, 5)],
            "of its surest 1,000 digits 5 are wrong, so that more of them would not help",
        ),
        ([ThresholdCounts(0.9, 10_000, 49)], "and it takes more than 1,000,000 at that rate"),
    ],
)
def test_a_target_that_cannot_be_proven_is_refused_with_what_it_would_take(
    risks: list[ThresholdCounts], words: str
) -> None:
    with pytest.raises(UsageError, match="cannot prove the target error 0.50%") as refusal:
        loosest_threshold(0.005, risks)
    assert words in str(refusal.value)
    assert "allow a larger --target-error" in str(refusal.value)


def test_the_number_of_digits_that_a_refusal_names_would_be_enough() -> None:
    with pytest.raises(UsageError, match="of its surest 2,000 digits 6 are wrong") as refusal:
        loosest_threshold(0.005, [ThresholdCounts(0.9, 2000, 6)])
    match = re.search(r"about ([\d,]+) at that rate", str(refusal.value))
    assert match
    needed = int(match[1].replace(",", ""))
    assert loosest_threshold(0.005, [ThresholdCounts(0.9, needed, round(needed * 0.003))]) == 0.9


def test_the_strictest_threshold_is_that_of_the_smallest_target_that_is_proven() -> None:
    risks = [ThresholdCounts(0.99, 3500, 0), ThresholdCounts(0.9, 5000, 15), ThresholdCounts(0.1, 6000, 60)]
    assert strictest_threshold(risks) == loosest_threshold(STRICTEST, risks) == 0.99
    assert strictest_threshold([ThresholdCounts(0.9, 1000, 0), ThresholdCounts(0.8, 2000, 30)]) == 0.9
    assert strictest_threshold([]) == 1.0

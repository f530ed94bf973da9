"""Risk: a threshold is given only where the counts prove its target, and a refusal says what would."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.errors import UsageError
from batchdigits.inference.thresholds import (
    DOUBTS,
    LEVEL,
    OWN_THRESHOLDS,
    STRICTEST,
    THRESHOLDS,
    Domain,
    DoubtCounts,
    Proof,
    ThresholdCounts,
    least_passing,
    loosest_threshold,
    probability_of_at_most,
    prove,
    prove_doubt,
    strictest_threshold,
    threshold_table,
)


def one(risks: Sequence[ThresholdCounts]) -> list[Domain]:
    """Validation data of one kind."""
    return [Domain("all", max((risk.passed for risk in risks), default=0), tuple(risks))]


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
    assert loosest_threshold(0.005, one(risks)) == 0.8  # and 0.6, which would do, comes after one that fails
    assert loosest_threshold(0.05, one(risks)) == 0.6


def test_the_sequence_begins_where_a_quarter_of_the_digits_pass_whatever_the_target() -> None:
    risks = one([ThresholdCounts(0.999, 700, 2), ThresholdCounts(0.99, 3000, 2), ThresholdCounts(0.9, 5000, 400)])
    assert (
        loosest_threshold(0.005, risks) == loosest_threshold(0.003, risks) == 0.99
    )  # 700 with 2 mistakes would end it


def test_a_threshold_is_accepted_where_each_domain_passes_by_itself_and_the_one_that_fails_first_decides() -> None:
    easy = [ThresholdCounts(0.99, 5000, 0), ThresholdCounts(0.9, 9000, 1), ThresholdCounts(0.8, 9900, 3)]
    hard = [ThresholdCounts(0.99, 1000, 0), ThresholdCounts(0.9, 1500, 9), ThresholdCounts(0.8, 2000, 40)]
    together = [
        ThresholdCounts(a.threshold, a.passed + b.passed, a.wrong + b.wrong) for a, b in zip(easy, hard, strict=True)
    ]
    assert loosest_threshold(0.005, one(together)) == 0.8  # on their mixture the looser one would do
    domains = [Domain("easy", 10_000, tuple(easy)), Domain("hard", 2500, tuple(hard))]
    assert prove(0.005, domains) == Proof(0.99, "hard")
    assert prove(0.005, domains[:1]) == Proof(0.8, "easy")


def test_a_domain_of_which_few_pass_where_others_begin_delays_the_beginning() -> None:
    sure = Domain("sure", 5000, (ThresholdCounts(0.99, 4000, 0), ThresholdCounts(0.9, 4500, 0)))
    unsure = Domain("unsure", 4000, (ThresholdCounts(0.99, 100, 0), ThresholdCounts(0.9, 2000, 1)))
    assert prove(0.005, [sure, unsure]) == Proof(0.9, "unsure")  # 100 alone could never prove it


def test_a_mean_doubt_is_proven_in_the_same_way_and_none_may_be() -> None:
    good = Domain("good", 4000, (), (DoubtCounts(0.001, 3000, 1), DoubtCounts(0.002, 3500, 5)))
    bad = Domain("bad", 4000, (), (DoubtCounts(0.001, 2000, 2), DoubtCounts(0.002, 2500, 30)))
    assert prove_doubt(0.005, [good, bad]) == Proof(0.001, "bad")
    assert prove_doubt(0.005, [good]) == Proof(0.002, "good")
    assert prove_doubt(0.001, [good, bad]) is None
    assert prove_doubt(0.005, []) is prove_doubt(0.005, one([ThresholdCounts(0.9, 5000, 0)])) is None


def test_the_limits_are_fixed_and_go_from_strict_to_loose() -> None:
    assert list(DOUBTS) == sorted(set(DOUBTS))
    assert set(OWN_THRESHOLDS) < set(THRESHOLDS)
    assert (OWN_THRESHOLDS[0], OWN_THRESHOLDS[-1]) == (0.995, 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.005, 0.01, 0.05]))
def test_a_stricter_target_never_has_a_looser_threshold(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(1 - rng.exponential(0.02, 5000), 4).clip(0.1, 1)
    risks = threshold_table(confidence, rng.random(5000) < confidence)
    found = []
    for asked in (target, target * 2):
        try:
            found.append(loosest_threshold(asked, one(risks)))
        except UsageError:
            found.append(2.0)
    assert found[0] >= found[1]


def test_a_true_error_above_the_target_is_seldom_accepted() -> None:
    """The level is kept: of 200 sets whose every digit is wrong with 0.6%, few pass for 0.5%."""
    rng = np.random.default_rng(7)
    accepted = 0
    for _ in range(200):
        confidence = np.round(1 - rng.exponential(0.05, 4000), 4).clip(0.1, 1)
        try:
            loosest_threshold(0.005, one(threshold_table(confidence, rng.random(4000) > 0.006)))
            accepted += 1
        except UsageError:
            pass
    assert accepted / 200 <= LEVEL + 0.03  # two standard errors


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
        loosest_threshold(0.005, one(risks))
    assert words in str(refusal.value)
    assert "allow a larger --target-error" in str(refusal.value)


def test_the_number_of_digits_that_a_refusal_names_would_be_enough() -> None:
    with pytest.raises(UsageError, match="of its surest 2,000 digits 6 are wrong") as refusal:
        loosest_threshold(0.005, one([ThresholdCounts(0.9, 2000, 6)]))
    match = re.search(r"about ([\d,]+) at that rate", str(refusal.value))
    assert match
    needed = int(match[1].replace(",", ""))
    assert loosest_threshold(0.005, one([ThresholdCounts(0.9, needed, round(needed * 0.003))])) == 0.9


def test_a_refusal_names_the_domain_that_is_furthest_from_it() -> None:
    domains = [Domain(name, 4000, (ThresholdCounts(0.9, 3000, wrong),)) for name, wrong in (("one", 3), ("two", 12))]
    with pytest.raises(UsageError, match="of its surest 3,000 digits of the kind «two» 12 are wrong"):
        loosest_threshold(0.005, domains)


def test_the_strictest_threshold_is_that_of_the_smallest_target_or_what_a_folder_may_have_of_its_own() -> None:
    risks = [ThresholdCounts(0.999, 3500, 0), ThresholdCounts(0.9, 5000, 15), ThresholdCounts(0.1, 6000, 60)]
    assert strictest_threshold(one(risks)) == loosest_threshold(STRICTEST, one(risks)) == 0.999
    assert strictest_threshold(one([ThresholdCounts(0.9, 1000, 0), ThresholdCounts(0.8, 2000, 30)])) == 0.995
    assert strictest_threshold([]) == 1.0

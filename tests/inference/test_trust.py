"""Trust: what a folder's confidences and the answers to its sample say, and the threshold that follows."""

from dataclasses import replace

import numpy as np
import pytest

from batchdigits.errors import UsageError
from batchdigits.inference import drift
from batchdigits.inference.folders import confidence_counts
from batchdigits.inference.thresholds import (
    LEVEL,
    Calibration,
    Domain,
    DoubtCounts,
    ThresholdCounts,
    answers_for,
    prove_answers,
    threshold_table,
)
from batchdigits.inference.trust import LEAST_DIGITS, TARGETS, Basis, Checked, Folder, Trust, estimate, judge

EASY = Domain(
    "easy", 9000, (ThresholdCounts(0.99, 8000, 0),), (DoubtCounts(0.002, 8000, 8), DoubtCounts(0.004, 8500, 17))
)
HARD = Domain(
    "hard", 4000, (ThresholdCounts(0.99, 2000, 2),), (DoubtCounts(0.002, 2000, 4), DoubtCounts(0.004, 3000, 60))
)
TERMS = Calibration(1.0, gate=1.0, domains=(EASY, HARD), reference=(20, 40, 40, 60, 80, 80, 80, 100, 100, 400))


def folder(confidence: list[float], sample: list[Checked] | None = None) -> Folder:
    made = Folder(confidence_counts(np.array(confidence)), drift.histogram(np.array(confidence)))
    made.sample.update({(f"{number:08}", 1): page for number, page in enumerate(sample or [])})
    return made


CLEAR = folder([0.9999] * 950 + [0.9] * 10)
UNCLEAR = folder([0.9999] * 500 + [0.95] * 300 + [0.6] * 200)


def judged(some: Folder, target: float = 0.005, **options: object) -> Trust:
    return judge(some, TERMS, target, **options)  # type: ignore[arg-type]


def test_a_clear_folder_gets_a_looser_threshold_than_the_validation_data_and_an_unclear_one_a_stricter() -> None:
    clear, unclear = judged(CLEAR), judged(folder([0.9999] * 500 + [0.993] * 300))
    assert (clear.threshold, clear.basis, clear.domain) == (0.5, Basis.FOLDER, "hard")
    assert (unclear.threshold, unclear.basis) == (0.994, Basis.FOLDER)
    assert clear.words() == (
        "target error 0.50% (ok from a confidence of 0.5, set by how clear these scans are; the hardest kind tested "
        "was «hard»), about 0.15% of the ok are probably wrong"
    )


def test_the_name_of_validation_data_reaches_no_terminal_as_it_is_spelled() -> None:
    planted = replace(TERMS, domains=(EASY, replace(HARD, name="h\x1b[2J\n")))
    assert r"«h\x1b[2J\x0a»" in judge(CLEAR, planted, 0.005).words()
    with pytest.raises(UsageError, match=r"«h\\x1b\[2J\\x0a»"):
        judge(CLEAR, planted, 0.0005)


@pytest.mark.parametrize(
    ("name", "said"), [("cell, board, old", "cell, board, old"), ("a, b, c, d, e", "a, b and 3 more")]
)
def test_of_many_kinds_that_decide_together_two_are_named(name: str, said: str) -> None:
    for digits in (10, LEAST_DIGITS):  # the threshold is that of the validation data, and the folder's own
        words = judge(
            folder([0.9999] * digits), replace(TERMS, domains=(EASY, replace(HARD, name=name))), 0.005
        ).words()
        assert f"«{said}»" in words


def test_a_small_folder_never_adapts_and_nothing_is_estimated_of_it() -> None:
    small = judged(folder([0.9999] * (LEAST_DIGITS - 1)))
    assert (small.threshold, small.basis, small.domain, small.expected) == (0.99, Basis.VALIDATION, "hard", None)
    assert judged(folder([0.9999] * LEAST_DIGITS)).basis is Basis.FOLDER
    words = "target error 0.50% (proven for scans like those that were tested; the hardest kind was «hard»)"
    assert small.words() == words


def test_without_adapting_the_threshold_is_that_of_the_validation_data() -> None:
    fixed = judged(CLEAR, adapt=False)
    assert (fixed.threshold, fixed.basis) == (0.99, Basis.VALIDATION)
    assert fixed.expected is not None


def test_a_given_threshold_stays_and_its_error_is_estimated_all_the_same() -> None:
    given = judged(UNCLEAR, given=0.94)
    assert (given.threshold, given.basis, given.promised) == (0.94, Basis.GIVEN, None)
    assert given.words() == "ok from a confidence of 0.94, about 1.10% of the ok are probably wrong"
    assert judge(CLEAR, Calibration(1.0, 1.0), 0.005, given=0.9).expected is None


def test_a_folder_that_is_worse_than_the_validation_data_has_nothing_proven() -> None:
    worse = judged(folder([0.9999] * 200 + [0.6] * 800))
    assert (worse.basis, worse.promised) == (Basis.DOUBTFUL, 0.005)
    assert worse.words().startswith(
        "target error 0.50% (it may be missed: these scans are less clear than the validation data, ok from"
    )
    assert worse.words().endswith("), about 0.15% of the ok would be wrong if these were like those")
    assert not {"proven", "probably"} & set(worse.words().split())
    fixed = judged(folder([0.9999] * 200 + [0.6] * 800), adapt=False)
    assert (fixed.basis, fixed.drifted) == (Basis.VALIDATION, True)
    assert "it may be missed" in fixed.words()
    assert not {"proven", "probably"} & set(fixed.words().split())
    none = judged(folder([0.996] * 1000))  # not even the strictest threshold keeps the doubt
    assert (none.basis, none.threshold) == (Basis.DOUBTFUL, 0.995)


def test_where_no_doubt_is_proven_the_threshold_is_that_of_the_validation_data() -> None:
    without = replace(TERMS, domains=tuple(replace(domain, doubts=()) for domain in TERMS.domains))
    found = judge(CLEAR, without, 0.005)
    assert (found.threshold, found.basis, found.expected) == (0.99, Basis.VALIDATION, None)


def test_a_target_that_cannot_be_proven_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot prove"):
        judged(CLEAR, 0.0001)


def test_the_estimate_is_what_the_validation_data_had_at_the_same_mean_doubt() -> None:
    counted = confidence_counts(np.array([0.998] * 300))
    assert estimate(counted, 0.9, TERMS.domains) == (pytest.approx((8 / 8000 + 4 / 2000) / 2), 4 / 2000)
    doubtful = confidence_counts(np.array([0.9] * 300))  # beyond the last
    assert estimate(doubtful, 0.9, TERMS.domains) == (pytest.approx((17 / 8500 + 60 / 3000) / 2), 60 / 3000)


# ---- answers ---------------------------------------------------------------------------------------------------------


def sampled(count: int, wrong: int = 0, answered: int | None = None) -> list[Checked]:
    """Pages that were read as 7, the last ones wrongly; the first are answered."""
    return [
        Checked(7, 0.9999 - 0.4 * number / count, ("1" if number >= count - wrong else "7") if number < many else "")
        for many in [count if answered is None else answered]
        for number in range(count)
    ]


def test_enough_answers_to_the_sample_prove_a_threshold_of_their_own() -> None:
    found = judged(folder([0.9999] * 1000, sampled(700)))
    assert (found.basis, found.answers, found.wrong, found.passed) == (Basis.ANSWERS, 700, 0, 700)
    assert found.threshold < 0.61  # looser than any other: all were right
    assert found.words() == (
        "target error 0.50% (proven on 700 of your own answers, ok from a confidence of 0.1), about 0.15% of the ok "
        "are probably wrong, of 700 ok that were sampled and answered 0 are wrong (0.00%, 95% interval 0.00% to 0.55%)"
    )
    assert judged(folder([0.9999] * 1000, sampled(700)), adapt=False).basis is Basis.VALIDATION


def test_answers_that_show_mistakes_make_the_threshold_stricter_or_prove_nothing() -> None:
    some = judged(folder([0.9999] * 1000, sampled(3000, wrong=300)))
    assert some.basis is Basis.ANSWERS
    assert 0.6 < some.threshold < 0.7
    assert judged(folder([0.9999] * 1000, sampled(650, wrong=30))).basis is Basis.FOLDER


def test_answers_count_up_to_the_first_page_of_the_sample_that_nobody_answered() -> None:
    pages = sampled(700)
    pages[100] = pages[100]._replace(answer="")
    found = judged(folder([0.9999] * 1000, pages))
    assert (found.answers, found.basis) == (100, Basis.FOLDER)


def test_answers_to_what_is_ok_show_its_error_though_nobody_answered_what_is_to_review() -> None:
    pages = [Checked(7, 0.6, ""), *(Checked(7, 0.9999, "7" if number else "1") for number in range(50))]
    found = judged(folder([0.9999] * 1000, pages), adapt=False)
    assert (found.answers, found.passed, found.wrong) == (0, 50, 1)


def test_an_answer_that_there_is_no_digit_is_a_mistake() -> None:
    assert judged(folder([0.9999] * 1000, [Checked(7, 0.9999, "x")])).wrong == 1


def test_the_missing_answers_are_about_as_many_as_a_proof_takes() -> None:
    assert judged(folder([0.9999] * 300)).missing == tuple(answers_for(target, 0, 0, 0) for target in TARGETS)
    assert [answers_for(target, 0, 0, 0) for target in TARGETS] == [299, 598, 2995]
    assert answers_for(0.005, 200, 100, 0) == 2 * 498  # half of the pages are ok
    assert answers_for(0.005, 100, 100, 3) is None
    many = answers_for(0.01, 1000, 1000, 4)
    assert many is not None
    assert prove_answers(0.01, (ThresholdCounts(0.9, 1000 + many, round(0.004 * (1000 + many))),)) == 0.9


def test_a_true_error_above_the_target_is_seldom_proven_on_answers() -> None:
    rng = np.random.default_rng(4)
    proven = 0
    for _ in range(400):
        confidence = np.round(1 - rng.exponential(0.02, 1500), 4).clip(0.1, 1)
        risks = threshold_table(confidence, rng.random(1500) > 0.0055)
        proven += prove_answers(0.005, risks) is not None
    assert proven / 400 <= LEVEL + 0.025  # two standard errors

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.records import NO_DIGIT
from batchdigits.training.evaluation.metrics import (
    Evaluation,
    as_json,
    as_text,
    confusion_csv,
    evaluate,
    percent,
    wilson_interval,
)

ANSWERS = st.lists(
    st.tuples(st.integers(NO_DIGIT, 9), st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=60
)  # said, true, confidence


def evaluated(said: list[int], true: list[int], confidence: list[float] | None = None) -> Evaluation:
    return evaluate(
        np.array(said, np.int8), np.array(true, np.int8), np.array(confidence or [0.9] * len(said), np.float64)
    )


@pytest.fixture
def small() -> Evaluation:
    """Three 4s (said 4, 9, none), two 9s (said 9, 9), one 7 (said 9)."""
    return evaluated([4, 9, NO_DIGIT, 9, 9, 9], [4, 4, 4, 9, 9, 7], [0.9, 0.6, np.nan, 1.0, 0.8, 0.7])


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(correct: int, count: int, low: float, high: float) -> None:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
    # table I, method 3
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_all_right_ends_at_one_and_still_has_a_width() -> None:
    low, high = wilson_interval(20, 20)
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert high <= 1


def test_a_larger_z_gives_a_wider_interval() -> None:
    low, high = wilson_interval(9_960, 10_000)
    low99, high99 = wilson_interval(9_960, 10_000, z=2.575829)
    assert low99 < low < 0.996 < high < high99


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_an_interval_of_impossible_counts_is_refused(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"correct={correct}, count={count}"):
        wilson_interval(correct, count)


def test_an_image_without_a_digit_counts_as_wrong_and_stands_in_the_last_column(small: Evaluation) -> None:
    assert (small.count, small.correct, small.unanswered) == (6, 3, 1)
    assert small.accuracy == 0.5
    assert small.interval == wilson_interval(3, 6)
    assert small.confusion[4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]
    assert small.confusion[7, 9] == 1
    assert small.confusion[9, 9] == 2
    assert small.confusion.sum() == 6


def test_precision_and_recall_are_those_worked_out_by_hand(small: Evaluation) -> None:
    assert (small.precision[4], small.recall[4]) == (1.0, 1 / 3)
    assert (small.precision[9], small.recall[9]) == (0.5, 1.0)
    assert (small.precision[7], small.recall[7]) == (None, 0.0)  # never said, but there
    assert (small.precision[0], small.recall[0]) == (None, None)  # neither said nor there


def test_mean_confidence_is_told_apart_for_right_and_wrong_and_leaves_unanswered_images_out(small: Evaluation) -> None:
    assert small.confidence_when_right == pytest.approx(0.9)
    assert small.confidence_when_wrong == pytest.approx(0.65)


def test_a_perfect_model_has_no_confidence_when_wrong() -> None:
    perfect = evaluated(list(range(10)), list(range(10)))
    assert perfect.accuracy == 1
    assert perfect.confidence_when_wrong is None
    assert perfect.precision == perfect.recall == (1.0,) * 10


def test_a_model_that_never_answers_is_evaluated_too() -> None:
    silent = evaluated([NO_DIGIT] * 3, [1, 2, 3], [np.nan] * 3)
    assert (silent.correct, silent.unanswered, silent.confidence_when_right) == (0, 3, None)


@given(ANSWERS)
def test_every_image_stands_once_in_the_confusion_matrix(answers: list[tuple[int, int, float]]) -> None:
    said, true, confidence = (list(column) for column in zip(*answers, strict=True))
    evaluation = evaluated(said, true, confidence)
    assert evaluation.confusion.dtype == np.int64
    assert evaluation.confusion.shape == (10, 11)
    assert evaluation.confusion.sum() == evaluation.count == len(answers)
    assert evaluation.confusion.diagonal().sum() == evaluation.correct
    assert evaluation.confusion.sum(axis=1).tolist() == np.bincount(true, minlength=10).tolist()
    low, high = evaluation.interval
    assert 0 <= low <= evaluation.accuracy + 1e-12
    assert evaluation.accuracy - 1e-12 <= high <= 1
    assert all(ord(character) < 128 for character in as_text(evaluation))


def test_the_confusion_matrix_cannot_be_changed(small: Evaluation) -> None:
    with pytest.raises(ValueError, match="read-only"):
        small.confusion[0, 0] = 1


@pytest.mark.parametrize(
    ("said", "true", "complaint"),
    [
        ([1, 2], [1], r"Received: shapes \(2,\), \(1,\)"),
        ([], [], r"N ≥ 1"),
        ([10], [1], "predicted must lie within -1 to 9. Received: 10"),
        ([-2], [1], "predicted must lie within -1 to 9. Received: -2"),
        ([1], [NO_DIGIT], "true must lie within 0 to 9. Received: -1"),
    ],
)
def test_input_that_makes_no_sense_is_refused_by_name(said: list[int], true: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        evaluated(said, true)


def test_the_text_holds_the_accuracy_the_matrix_and_a_line_a_digit(small: Evaluation) -> None:
    lines = as_text(small).splitlines()
    assert lines[:3] == [
        "Accuracy 50.00% (3 of 6 right), 95% interval 18.76% to 81.24%",
        "Mean confidence 90.00% when right, 65.00% when wrong",
        "Expected calibration error 32.00%, by 15 bins of equal count",
    ]
    assert lines[3] == "No digit was said for 1 of them; they count as wrong"
    header = lines.index("        0    1    2    3    4    5    6    7    8    9 none")
    matrix = lines[header + 1 : header + 11]
    assert matrix[4].split() == ["4", ".", ".", ".", ".", "1", ".", ".", ".", ".", "1", "1"]
    assert {len(line) for line in matrix} == {len(lines[header])}
    assert [line.split() for line in lines[-10:]][4] == ["4", "3", "100.00%", "33.33%"]
    assert [line.split() for line in lines[-10:]][7] == ["7", "1", "-", "0.00%"]


def test_a_threshold_tells_what_it_lets_pass_and_what_is_wrong_of_it() -> None:
    said, true = np.array([1, 2, 3, NO_DIGIT], np.int8), np.array([1, 2, 4, 5], np.int8)
    found = evaluate(said, true, np.array([0.9, 0.8, 0.95, 1.0]), threshold=0.9)
    assert found.selected == (0.9, 2, 1)
    assert "From a confidence of 0.9: 50.00% are ok, 50.00% of them wrong (1 of 2)" in as_text(found)
    assert as_json(found)["selected"] == {"threshold": 0.9, "passed": 2, "wrong": 1}
    assert evaluated([1], [1]).selected is None
    assert evaluated([NO_DIGIT], [1]).calibration_error is None


def test_what_was_promised_estimated_and_found_stand_side_by_side() -> None:
    found = evaluate(*[np.zeros(400, np.int8)] * 2, np.ones(400), threshold=0.9)
    told = replace(found, promised_error=0.005, expected_error=0.0021)
    line = "Wrong of the ok: 0.50% promised, 0.21% estimated, 0.00% true (0.00% to 0.95%)"
    assert line in as_text(told).splitlines()
    assert "Wrong of the ok: 0.00% true (0.00% to 0.95%)" in as_text(found).splitlines()
    assert (as_json(told)["promised_error"], as_json(told)["expected_error"]) == (0.005, 0.0021)


def test_a_digit_that_may_be_none_is_never_ok() -> None:
    zeros = np.zeros(4, np.int8)
    may_be_ok = np.array([True, False, True, True])
    assert evaluate(zeros, zeros, np.ones(4), threshold=0.9, may_be_ok=may_be_ok).selected == (0.9, 3, 0)


def test_the_text_says_nothing_of_unanswered_images_where_there_are_none() -> None:
    assert "No digit" not in as_text(evaluated([1], [1]))


def test_the_text_of_a_large_evaluation_fits_a_terminal() -> None:
    true = np.zeros(99_999, np.int8)
    text = as_text(evaluate(true, true, np.ones(99_999)))
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.00%"), (0.9999999, "99.99%"), (0.9962, "99.62%"), (0.0, "0.00%")]
)
def test_only_all_is_a_hundred_per_cent(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_json_is_plain_numbers_and_survives_a_round_trip(small: Evaluation) -> None:
    record = as_json(small)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["count"], record["correct"], record["accuracy"]) == (6, 3, 0.5)
    assert record["interval_95"] == [pytest.approx(end, abs=1e-6) for end in small.interval]
    assert record["confusion"] == small.confusion.tolist()


def test_the_csv_holds_the_matrix_and_names_its_columns(small: Evaluation) -> None:
    text = confusion_csv(small)
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["true", *(f"said_{digit}" for digit in range(10)), "said_none"]
    assert [[int(cell) for cell in row] for row in rows] == [
        [digit, *counts] for digit, counts in enumerate(small.confusion.tolist())
    ]
    assert text.count("\r\n") == text.count("\n") == 11

"""Measure what answers are worth: counts, accuracy and its interval, confusion, calibration.

Pure functions on arrays, and three renderings of their result: text for the terminal, JSON for `metrics.json`,
CSV for the confusion matrix. The pictures are drawn in `plots`.
"""

import csv
import io
import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.audit import wilson_interval
from batchdigits.inference.thresholds import ThresholdCounts
from batchdigits.records import NO_DIGIT, Digits

Confidences = NDArray[np.float64]  # [N], 0 … 1
Confusion = NDArray[np.int64]  # [10, 11], row: true digit; column: digit said, the last one `none`
Shares = tuple[float | None, ...]  # ten shares of 0 … 1, one a digit


SAID = (*"0123456789", "none")
"""The names of the columns of a confusion matrix."""


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: arrays have no truth value
class Evaluation:
    """How a model answered on labelled images; an image without an answer counts as wrong."""

    count: int
    """Labelled images."""
    correct: int
    """Images whose predicted digit is the true one."""
    unanswered: int
    """Images for which no digit was predicted."""
    accuracy: float
    """`correct / count`, 0 to 1."""
    interval: tuple[float, float]
    """The 95% Wilson interval of `accuracy`: low and high, 0 to 1."""
    precision: Shares
    """For each digit, the share of right ones among the images it was said of; None if it was never said."""
    recall: Shares
    """For each digit, the share of its images that were read rightly; None if it has no images."""
    confidence_when_right: float | None
    """Mean confidence of the right answers, 0 to 1; None if there are none."""
    confidence_when_wrong: float | None
    """Mean confidence of the wrong answers, 0 to 1, images without an answer left out; None if there are none."""
    calibration_error: float | None
    """The expected calibration error over 15 bins of equal count, 0 to 1; None where nothing was answered."""
    selected: ThresholdCounts | None
    """What the threshold lets pass, and what is wrong of it; None where there is no threshold."""
    confusion: Confusion
    """Images by true digit (row) and digit said (column; the last one `none`); int64[10, 11], read-only."""
    promised_error: float | None = None
    """The share of wrong digits among those that are `ok` that the threshold is to keep; None where it was given."""
    expected_error: float | None = None
    """The same share as a run would estimate it without labels; None of too few digits."""


def evaluate(
    predicted: Digits,
    true: Digits,
    confidence: Confidences,
    *,
    threshold: float | None = None,
    may_be_ok: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Compare what was said with what is true.

    Args:
        predicted: The digits said, [N], 0 to 9, or `NO_DIGIT`; N ≥ 1.
        true: The digits that stand on the images, [N], 0 to 9.
        confidence: How sure each answer was, [N], 0 to 1; ignored (and may be NaN) where no digit was said.
        threshold: Confidence from which an answer would be `ok`, if that is of interest.
        may_be_ok: Which digits are `ok` from there on, [N]; all of them without it.

    Raises:
        ValueError: The lengths differ, there are no images, or a digit is out of range.
    """
    if not predicted.shape == true.shape == confidence.shape or predicted.ndim != 1 or predicted.size == 0:
        message = (
            "evaluate needs three arrays of the same length N ≥ 1. "
            f"Received: shapes {predicted.shape}, {true.shape}, {confidence.shape}"
        )
        raise ValueError(message)
    _check_range("predicted", predicted, NO_DIGIT)
    _check_range("true", true, 0)

    column = np.where(predicted == NO_DIGIT, 10, predicted).astype(np.int64)
    confusion = np.bincount(true.astype(np.int64) * 11 + column, minlength=110).reshape(10, 11)  # [N] -> [10, 11]
    confusion.setflags(write=False)
    right = predicted == true
    wrong = ~right & (predicted != NO_DIGIT)
    hits = confusion.diagonal()
    sure = np.where(predicted == NO_DIGIT, np.nan, confidence)
    passed = sure >= (np.inf if threshold is None else threshold)
    if may_be_ok is not None:
        passed &= may_be_ok
    count, correct = int(true.size), int(right.sum())
    return Evaluation(
        count=count,
        correct=correct,
        unanswered=int(confusion[:, 10].sum()),
        accuracy=correct / count,
        interval=wilson_interval(correct, count),
        precision=_shares(hits, confusion[:, :10].sum(axis=0)),
        recall=_shares(hits, confusion.sum(axis=1)),
        confidence_when_right=_mean(confidence[right]),
        confidence_when_wrong=_mean(confidence[wrong]),
        calibration_error=calibration_error(sure, right) if (right | wrong).any() else None,
        selected=None
        if threshold is None
        else ThresholdCounts(threshold, int(passed.sum()), int((passed & wrong).sum())),
        confusion=confusion,
    )


def as_text(evaluation: Evaluation) -> str:
    """Render for a terminal: accuracy, confusion matrix, and a line a digit.

    Returns:
        Lines of plain ASCII without a final line end, at most 80 columns wide as long as no count of the matrix
        is over 99,999. A zero of the matrix is a dot, so that the mistakes stand out.
    """
    return "\n".join(
        [*_overall_lines(evaluation), "", *_confusion_lines(evaluation.confusion), "", *_digit_lines(evaluation)]
    )


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """Render for `metrics.json`: plain numbers, lists and None only; shares rounded to six decimals."""
    plain = {field.name: _plain(getattr(evaluation, field.name)) for field in fields(evaluation)}
    return {"interval_95" if name == "interval" else name: value for name, value in plain.items()}


def _plain(value: object) -> object:
    """Make a number, or what holds several, JSON."""
    if isinstance(value, ThresholdCounts):
        return value._asdict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def confusion_csv(evaluation: Evaluation) -> str:
    """Render the confusion matrix as RFC 4180 CSV, lines ending in CRLF: write it without newline translation."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["true", *(f"said_{name}" for name in SAID)])
    writer.writerows([digit, *row] for digit, row in enumerate(evaluation.confusion.tolist()))
    return buffer.getvalue()


def percent(share: float) -> str:
    """Spell a share of 0 to 1 with two decimals; only all is `100.00%`, one mistake in a million is not."""
    return f"{share if share == 1 else min(share, 0.9999):.2%}"


def interval_text(evaluation: Evaluation) -> str:
    """Spell the interval of the accuracy, for a line of text or a picture's title."""
    low, high = evaluation.interval
    return f"95% interval {low:.2%} to {high:.2%}"


def _overall_lines(evaluation: Evaluation) -> list[str]:
    count, correct = evaluation.count, evaluation.correct
    lines = [
        f"Accuracy {percent(evaluation.accuracy)} ({correct:,} of {count:,} right), {interval_text(evaluation)}",
        f"Mean confidence {_percent_or_dash(evaluation.confidence_when_right)} when right, "
        f"{_percent_or_dash(evaluation.confidence_when_wrong)} when wrong",
    ]
    if evaluation.calibration_error is not None:
        lines.append(f"Expected calibration error {evaluation.calibration_error:.2%}, by 15 bins of equal count")
    if evaluation.selected and evaluation.selected.passed:
        threshold, passed, wrong_ones = evaluation.selected
        lines.append(
            f"From a confidence of {threshold}: {percent(passed / count)} are ok, {wrong_ones / passed:.2%} of them "
            f"wrong ({wrong_ones:,} of {passed:,})"
        )
        lines.append(_side_by_side(evaluation, evaluation.selected))
    if evaluation.unanswered:
        lines.append(f"No digit was said for {evaluation.unanswered:,} of them; they count as wrong")
    return lines


def _side_by_side(evaluation: Evaluation, selected: ThresholdCounts) -> str:
    """Say what was promised, estimated and found of those that are ok."""
    parts = []
    if evaluation.promised_error is not None:
        parts.append(f"{evaluation.promised_error:.2%} promised")
    if evaluation.expected_error is not None:
        parts.append(f"{evaluation.expected_error:.2%} estimated")
    low, high = wilson_interval(selected.wrong, selected.passed)
    parts.append(f"{selected.wrong / selected.passed:.2%} true ({low:.2%} to {high:.2%})")
    return f"Wrong of the ok: {', '.join(parts)}"


def _confusion_lines(confusion: Confusion) -> list[str]:
    width = max(len(str(confusion.max())), len("none"))
    cells = [[f"{n or '.':>{width}}" for n in row] for row in confusion.tolist()]
    header = " ".join(f"{name:>{width}}" for name in SAID)
    return [
        f"{'true':<5}{'digit said':^{len(header)}}".rstrip(),
        f"{'':5}{header}",
        *(f"{digit:>3}  {' '.join(row)}" for digit, row in enumerate(cells)),
    ]


def _digit_lines(evaluation: Evaluation) -> list[str]:
    images = evaluation.confusion.sum(axis=1)
    return [
        "true    images  precision     recall",
        *(
            f"{digit:>3}  {images[digit]:>9,}  {_percent_or_dash(precision):>9}  {_percent_or_dash(recall):>9}"
            for digit, (precision, recall) in enumerate(zip(evaluation.precision, evaluation.recall, strict=True))
        ),
    ]


def _check_range(name: str, digits: Digits, lowest: int) -> None:
    low, high = int(digits.min()), int(digits.max())
    if low < lowest or high > 9:
        message = f"{name} must lie within {lowest} to 9. Received: {low} to {high}"
        raise ValueError(message)


def _shares(hits: NDArray[np.int64], totals: NDArray[np.int64]) -> Shares:
    return tuple(hit / total if total else None for hit, total in zip(hits.tolist(), totals.tolist(), strict=True))


def _mean(values: Confidences) -> float | None:
    return float(values.mean()) if values.size else None


def _percent_or_dash(share: float | None) -> str:
    return "-" if share is None else percent(share)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15) -> float:
    """Compute the expected calibration error over bins of equal count: 0 to 1; NaN without any.

    Args:
        confidence: float64[N]; NaN where no digit was said, which does not count.
        right: bool[N].
        bins: How many; fewer where there are fewer digits.

    Source: bins of equal count: Nixon, Dusenberry, Zhang, Jerfel, Tran, «Measuring Calibration in Deep Learning»,
    CVPR workshops 2019.
    """
    counts, sure, hits = bins_of(confidence, right, bins=bins)
    return float((counts * np.abs(sure - hits)).sum() / counts.sum()) if counts.sum() else math.nan


def bins_of(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Part digits into bins of equal count by confidence.

    Returns:
        int64[B], how many; float64[B], their mean confidence; float64[B], the share that is right.
    """
    said = ~np.isnan(confidence)
    order = np.argsort(confidence[said], kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    sure = [float(confidence[said][part].mean()) for part in parts]
    hits = [float(right[said][part].mean()) for part in parts]
    return np.array([len(part) for part in parts], np.int64), np.array(sure), np.array(hits)


def risk_coverage(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Follow the error among the surest images as more of all N are let pass.

    Returns:
        float64[M], the coverage, rising; float64[M], the share of wrong digits among those.

    Source: El-Yaniv, Wiener, «On the Foundations of Noise-free Selective Classification», JMLR 11, 2010.
    """
    said = ~np.isnan(confidence)
    order = np.argsort(-confidence[said], kind="stable")
    passed = np.arange(1, len(order) + 1)
    return passed / max(len(confidence), 1), np.cumsum(~right[said][order]) / passed

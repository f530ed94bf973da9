"""Decide from logits and ink measures what a row says: its status, digit and confidence.

Numbers are rounded here, once, to the four decimals that reports show, and the status is decided on the rounded
ones: whoever reads a report and knows the threshold comes to the same status as the program.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import BundleError
from batchdigits.inference.calibration import Calibration
from batchdigits.records import (
    BLANK,
    DEPTH,
    DIGITS,
    EDGE,
    INK,
    NO_DIGIT,
    NOT_A_DIGIT,
    OTHER,
    Digits,
    Fractions,
    InkMeasures,
    Logits,
    Status,
)

DECIMALS = 4
"""Decimals of every confidence and probability in a report."""
FAINT = 0.25
"""Of the column `DEPTH`, below which ink is called faint."""
ANOTHER = 0.4
"""Of the column `OTHER`, above which a page shows several things. tests/benchmarks/accuracy.py: of 8,774 digits two are
above it, of 300 pages with two or three digits side by side 82%."""
BLANK_WEIGHT = 4
"""What the probability of empty paper counts at the gate, against that of other ink: the network seldom gives it to a
digit, and an empty page that passes for one is the worse mistake. `tests/benchmarks/accuracy.py` measures both."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What is decided about N readable pages, one column a field."""

    status: list[Status]
    """`ok`, `review`, `blank` or `not_a_digit`."""
    digit: Digits
    """int8[N], the likeliest digit; -1 where there is none."""
    confidence: Fractions
    """float64[N], its probability, four decimals; NaN where there is none."""
    runner_up: Digits
    """int8[N], the second likeliest digit; -1 where there is none."""
    runner_up_confidence: Fractions
    """float64[N], its probability, four decimals; NaN where there is none."""
    detail: list[str]
    """The reason where the status is not `ok`; else empty."""
    probabilities: NDArray[np.float32]
    """float32[N, 10], four decimals each, so that a row sums to one within 0.0005; NaN where there is no digit."""


def decide(
    logits: Logits, ink: InkMeasures, *, threshold: float, temperature: float = 1.0, gate: float = 1.0
) -> Decisions:
    """Decide on readable pages.

    Among equal logits the smaller digit wins. A page without ink is blank, whatever its logits say. The gate lets a
    page pass as a digit unless the outputs beyond the ten have more than its share of the probability, that of empty
    paper counted `BLANK_WEIGHT` times, or another thing as large as a digit was left out.

    Args:
        logits: float32[N, K] with K >= 10.
        ink: float32[N, M], the ink measures of the same pages.
        threshold: Confidence, 0 to 1, from which a digit is `ok`; below, it goes to review.
        temperature: Calibration: what the logits of the ten digits are divided by; above 0. The gate sees them as they
            are: what is no digit does not change with how sure the model is of digits.
        gate: Probability, 0 to 1, that the page shows no digit, above which it has none; 1 turns the gate off.

    Returns:
        The decisions, row by row in the order of `logits`.

    Raises:
        BundleError: The model gave a page with ink a logit that is not a finite number.
    """
    has_ink = ink[:, INK] > 0
    if not np.isfinite(logits[has_ink]).all():
        message = "The model gave a value that is not a finite number; it is damaged, so use another with --model."
        raise BundleError(message)

    refused, empty = np.zeros_like(has_ink), ~has_ink
    if gate < 1:
        none = softmax(logits[has_ink])[:, DIGITS:]
        none[:, BLANK - DIGITS :] *= BLANK_WEIGHT
        refused[has_ink] = none.sum(axis=1) > gate
    if logits.shape[1] > BLANK:
        empty |= refused & (logits[:, BLANK] > logits[:, NOT_A_DIGIT])
    several = has_ink & ~refused & (ink[:, OTHER] > ANOTHER)
    refused |= several
    read = has_ink & ~refused
    shares = np.full((len(logits), DIGITS), np.nan)
    shares[read] = np.round(probabilities(logits[read], temperature=temperature), DECIMALS)

    # By logits: of probabilities, several may have become 0.
    order = np.argsort(-logits[:, :DIGITS], axis=1, kind="stable")  # [N, 10], likeliest first
    first, second = order[:, 0], order[:, 1]
    page = np.arange(len(logits))
    confidence = shares[page, first]  # NaN where there is no digit
    digit = np.where(read, first, NO_DIGIT).astype(np.int8)
    runner_up = np.where(read, second, NO_DIGIT).astype(np.int8)

    status = np.full(len(logits), Status.REVIEW, object)
    status[confidence >= threshold] = Status.OK
    status[refused] = Status.NOT_A_DIGIT
    status[empty] = Status.BLANK
    detail = np.full(len(logits), "", object)
    detail[refused] = "what is on it does not look like one digit"
    detail[several] = "there is more than one thing on it"
    detail[empty] = "it looks like empty paper"
    detail[~has_ink] = "no ink was found"
    for row in np.flatnonzero(status == Status.REVIEW).tolist():
        low, high = sorted((first[row], second[row]))
        reasons = [f"could be {low} or {high}"]
        reasons += ["faint ink"] if ink[row, DEPTH] < FAINT else []
        reasons += ["touches the edge"] if ink[row, EDGE] else []
        detail[row] = "; ".join(reasons)
    return Decisions(
        status=status.tolist(),
        digit=digit,
        confidence=confidence,
        runner_up=runner_up,
        runner_up_confidence=shares[page, second],
        detail=detail.tolist(),
        probabilities=shares.astype(np.float32),
    )


def decide_calibrated(logits: Logits, ink: InkMeasures, calibration: Calibration, *, threshold: float) -> Decisions:
    """Decide as `decide` does, by the temperature and the gate of a model."""
    return decide(logits, ink, threshold=threshold, temperature=calibration.temperature, gate=calibration.gate)


def probabilities(logits: Logits, *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute calibrated probabilities by a softmax in float64 that cannot overflow, unrounded.

    Args:
        logits: float32[N, K] with K >= 10; only the first ten columns count.
        temperature: What the logits are divided by; above 0.

    Returns:
        float64[N, 10], 0 to 1, each row summing to one.
    """
    return softmax(logits[:, :DIGITS], temperature)


def softmax(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute probabilities, float64[N, K], from logits [N, K] divided by `temperature`; it cannot overflow."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)

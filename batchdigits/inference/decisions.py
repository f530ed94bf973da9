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
    NOTHING,
    OTHER,
    SINGLE,
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
ANOTHER = 0.5
"""Of the column `OTHER`, above which a page shows several things."""
DOUBT = 0.5
"""Probability that a page shows no digit, above which a person is asked; above the gate nobody is."""
SURELY_NOTHING = 0.8
"""Of the column `NOTHING`, below which a page is never called blank: tables with words in them reach 0.77."""
NONE_BEFORE = 0.26
"""Share of the simulated pages that show no single digit: what both networks expect before they have seen a page."""


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

    Among equal logits the smaller digit wins. Where `no_digit` is likelier than the gate, or another thing as large as
    the digit was left out, a page shows no digit; where it is only likelier than `DOUBT`, the digit goes to review.
    Blank is a page on which neither network saw anything.

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

    nothing = np.ones(len(logits))
    nothing[has_ink] = no_digit(logits[has_ink], ink[has_ink])
    asked = ink[:, NOTHING:].any(1)
    written = asked & (ink[:, NOTHING] < SURELY_NOTHING)
    refused = (nothing > gate) | ~has_ink
    empty = ~has_ink & ~written
    if logits.shape[1] > BLANK:
        empty |= refused & ~written & (logits[:, BLANK] > logits[:, NOT_A_DIGIT])
    several = has_ink & ~refused & (ink[:, OTHER] > ANOTHER)
    refused |= several & ~(asked & (ink[:, SINGLE] > DOUBT))
    doubted = several | (nothing > DOUBT if gate < 1 else np.zeros_like(several))
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
    status[(confidence >= threshold) & ~doubted] = Status.OK
    status[refused] = Status.NOT_A_DIGIT
    status[empty] = Status.BLANK
    detail = np.full(len(logits), "", object)
    detail[refused] = "what is on it does not look like one digit"
    detail[refused & ~has_ink] = "no digit was found on it"
    detail[refused & several] = "there is more than one thing on it"
    detail[empty] = "it looks like empty paper"
    detail[empty & ~has_ink] = "no ink was found"
    for row in np.flatnonzero(status == Status.REVIEW).tolist():
        low, high = sorted((first[row], second[row]))
        reasons = [f"could be {low} or {high}"] if confidence[row] < threshold else []
        reasons += ["may be no digit"] if doubted[row] else []
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


def no_digit(logits: Logits, ink: InkMeasures) -> Fractions:
    """Weigh what both networks say against a page's showing one digit: float64[N], 0 to 1.

    The reader looks at the ink that was found, the finder at the whole page, so that they see different things, and
    their odds are multiplied; a page on which the finder was not asked has the reader's alone.

    Args:
        logits: float32[N, K] with K >= 10; of ten alone nothing can be told.
        ink: float32[N, M], the ink measures.
    """
    least = 1e-6
    own = np.clip(softmax(logits)[:, DIGITS:].sum(axis=1), least, 1 - least)
    single = np.clip(ink[:, SINGLE].astype(np.float64), least, 1 - least)
    seen = (1 - single) / single * (1 - NONE_BEFORE) / NONE_BEFORE
    odds = own / (1 - own) * np.where(ink[:, NOTHING:].any(1), seen, 1.0)
    return np.asarray(odds / (1 + odds))


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

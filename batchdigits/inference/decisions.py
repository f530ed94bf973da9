"""Decide from logits and ink measures what a row says: its status, digit and confidence.

Numbers are rounded here, once, to the four decimals that reports show, and the status is decided on the rounded
ones: whoever reads a report and knows the threshold comes to the same status as the program.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import BundleError
from batchdigits.inference.thresholds import Calibration
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
    SEVERAL,
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
"""Of the column `OTHER`, from which a page shows several things: of photographed sheets many have just that."""
DOUBT = 0.05
"""Probability that a page shows no digit, above which a person is asked; above the gate nobody is. From 0.2 down to it,
a quarter to a third of the foreign letters, struck-out digits and numbers that were `ok` go to review, and one digit in
a hundred of real scans."""
SURELY_NOTHING = 0.88
"""Of the column `NOTHING`, below which a page is never called blank: 0.7% of tables with words in them reach it."""
SEVERAL_DIGITS = "it seems to hold several digits or letters"
"""The detail of a page that is refused because the ink finder sees several of them on it."""
MAY_BE_NO_DIGIT = "may be no digit"
"""Stands in the detail of a page whose digit is to review since it perhaps shows none."""
NONE_BEFORE = 0.26
"""Share of the simulated pages that show no single digit: what both networks expect before they have seen a page."""
MOST_STEPS = 1.0
"""By how much evidence changes the logarithm of a temperature, at most."""

_LIKELY = 0.5
_LEAST_CHANCE = 1e-6  # what is told of less is noise


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
    may_be_ok: NDArray[np.bool_]
    """bool[N], whether a digit is `ok` at some threshold: nobody doubts that there is one."""
    probabilities: NDArray[np.float32]
    """float32[N, 10], four decimals each, so that a row sums to one within 0.0005; NaN where there is no digit."""


def decide(
    logits: Logits,
    ink: InkMeasures,
    *,
    threshold: float,
    temperature: float | Fractions = 1.0,
    gate: float = 1.0,
) -> Decisions:
    """Decide on readable pages.

    Among equal logits the smaller digit wins. Where `no_digit` is likelier than the gate, or another thing as large as
    the digit was left out, a page shows no digit; where it is only likelier than `DOUBT`, the digit goes to review.
    Blank is a page on which neither network saw anything.

    Args:
        logits: float32[N, K] with K >= 10.
        ink: float32[N, M], the ink measures of the same pages.
        threshold: Confidence, 0 to 1, from which a digit is `ok`; below, it goes to review.
        temperature: Calibration: what the logits of the ten digits are divided by, one for all or float64[N]; above 0.
            The gate sees them as they are: what is no digit does not change with how sure the model is of digits.
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
    several = has_ink & ~refused & (ink[:, OTHER] >= ANOTHER)
    refused |= several & ~(asked & (ink[:, SINGLE] > _LIKELY))
    doubted = several | (nothing > DOUBT if gate < 1 else np.zeros_like(several))
    read = has_ink & ~refused
    shares = np.full((len(logits), DIGITS), np.nan)
    divided_by = np.broadcast_to(temperature, len(logits))[read]
    shares[read] = np.round(probabilities(logits[read], temperature=divided_by), DECIMALS)

    # By logits: of probabilities, several may have become 0.
    order = np.argsort(-logits[:, :DIGITS], axis=1, kind="stable")  # [N, 10], likeliest first
    first, second = order[:, 0], order[:, 1]
    page = np.arange(len(logits))
    confidence = shares[page, first]  # NaN where there is no digit
    digit = np.where(read, first, NO_DIGIT).astype(np.int8)
    runner_up = np.where(read, second, NO_DIGIT).astype(np.int8)

    status = np.full(len(logits), Status.REVIEW, object)
    status[refused] = Status.NOT_A_DIGIT
    status[empty] = Status.BLANK
    detail = np.full(len(logits), "", object)
    detail[refused] = "what is on it does not look like one digit"
    detail[refused & ~has_ink] = "no digit was found on it"
    detail[refused & several] = "there is more than one thing on it"
    detail[refused & (ink[:, SEVERAL] > _LIKELY)] = SEVERAL_DIGITS
    detail[empty] = "it looks like empty paper"
    detail[empty & ~has_ink] = "no ink was found"
    decided = Decisions(
        status=status.tolist(),
        digit=digit,
        confidence=confidence,
        runner_up=runner_up,
        runner_up_confidence=shares[page, second],
        detail=detail.tolist(),
        may_be_ok=read & ~doubted,
        probabilities=shares.astype(np.float32),
    )
    return with_threshold(decided, ink, threshold)


def with_threshold(decided: Decisions, ink: InkMeasures, threshold: float) -> Decisions:
    """Decide by another threshold: what is `ok`, and why what is not goes to review.

    Args:
        decided: By whatever threshold.
        ink: float32[N, M], the ink measures of the same pages.
        threshold: As `decide` has it.
    """
    status, detail = (np.array(column, object) for column in (decided.status, decided.detail))
    read = decided.digit != NO_DIGIT
    is_ok = decided.may_be_ok & (decided.confidence >= threshold)
    status[is_ok], detail[is_ok] = Status.OK, ""
    for row in np.flatnonzero(read & ~is_ok).tolist():
        low, high = sorted((decided.digit[row], decided.runner_up[row]))
        reasons = [f"could be {low} or {high}"] if decided.confidence[row] < threshold else []
        reasons += [] if decided.may_be_ok[row] else [MAY_BE_NO_DIGIT]
        reasons += ["faint ink"] if ink[row, DEPTH] < FAINT else []
        reasons += ["touches the edge"] if ink[row, EDGE] else []
        status[row], detail[row] = Status.REVIEW, "; ".join(reasons)
    return replace(decided, status=status.tolist(), detail=detail.tolist())


def no_digit(logits: Logits, ink: InkMeasures) -> Fractions:
    """Weigh what both networks say against a page's showing one digit: float64[N], 0 to 1.

    The reader looks at the ink that was found, the finder at the whole page, so that they see different things, and
    their odds are multiplied; a page on which the finder was not asked has the reader's alone.

    Args:
        logits: float32[N, K] with K >= 10; of ten alone nothing can be told.
        ink: float32[N, M], the ink measures.
    """
    own = np.clip(softmax(logits)[:, DIGITS:].sum(axis=1), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    single = np.clip(ink[:, SINGLE].astype(np.float64), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    seen = (1 - single) / single * (1 - NONE_BEFORE) / NONE_BEFORE
    odds = own / (1 - own) * np.where(ink[:, NOTHING:].any(1), seen, 1.0)
    return np.asarray(odds / (1 + odds))


EVIDENCE = ("no digit", "single", "asked", "share", "other", "depth", "edge")
"""Columns of `evidence`."""


def evidence(logits: Logits, ink: InkMeasures) -> NDArray[np.float64]:
    """Tell of N pages what their temperature follows: float64[N, 7], one column for each of `EVIDENCE`.

    How sure a network is of digits, and how often it is right, differs between clean cut-outs and pages on which the
    digit had to be found. The columns are the logarithm of the odds that a page shows no digit; that of the finder's
    own odds that it shows a single one, 0 where it was not asked; whether it was asked; the logarithm of the digit's
    share of the page; and the ink measures `OTHER` (up to 1), `DEPTH` and `EDGE` as they are.
    """
    least = 1e-4
    measures = ink.astype(np.float64)
    nothing = np.clip(no_digit(logits, ink), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    single = np.clip(measures[:, SINGLE], least, 1 - least)
    asked = measures[:, NOTHING:].any(1)
    return np.stack(
        [
            np.log(nothing / (1 - nothing)),
            np.where(asked, np.log(single / (1 - single)), 0.0),
            asked,
            np.log(measures[:, INK] + least),
            np.minimum(measures[:, OTHER], 1.0),
            measures[:, DEPTH],
            measures[:, EDGE],
        ],
        axis=1,
    )


def temperatures(evidence: NDArray[np.float64], calibration: Calibration) -> Fractions:
    """Compute by which temperature the logits of each page are divided: float64[N], above 0.

    Args:
        evidence: float64[N, 7], by the function of that name.
        calibration: Of the model.

    Source: a temperature for each sample: Balanya, Maroñas, Ramos, «Adaptive Temperature Scaling for Robust
    Calibration of Deep Neural Networks», 2022, https://arxiv.org/abs/2208.00461
    """
    if not calibration.slopes:
        return np.full(len(evidence), calibration.temperature)
    centres, slopes = (np.array(column) for column in zip(*calibration.slopes, strict=True))
    steps = np.clip(((evidence - centres) * slopes).sum(axis=1), -MOST_STEPS, MOST_STEPS)
    return np.asarray(calibration.temperature * np.exp(steps), np.float64)


def decide_calibrated(logits: Logits, ink: InkMeasures, calibration: Calibration, *, threshold: float) -> Decisions:
    """Decide as `decide` does, by the temperature and the gate of a model."""
    readable = (ink[:, INK] > 0) & np.isfinite(logits).all(axis=1)
    divided_by = np.ones(len(logits))
    divided_by[readable] = temperatures(evidence(logits[readable], ink[readable]), calibration)
    return decide(logits, ink, threshold=threshold, temperature=divided_by, gate=calibration.gate)


def probabilities(logits: Logits, *, temperature: float | Fractions = 1.0) -> NDArray[np.float64]:
    """Compute calibrated probabilities by a softmax in float64 that cannot overflow, unrounded.

    Args:
        logits: float32[N, K] with K >= 10; only the first ten columns count.
        temperature: What the logits are divided by, the same for all or float64[N]; above 0.

    Returns:
        float64[N, 10], 0 to 1, each row summing to one.
    """
    return softmax(logits[:, :DIGITS], temperature)


def softmax(logits: Logits, temperature: float | Fractions = 1.0) -> NDArray[np.float64]:
    """Compute probabilities, float64[N, K], from logits [N, K] divided by `temperature`; it cannot overflow."""
    scaled = logits.astype(np.float64) / np.reshape(temperature, (-1, 1))
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)

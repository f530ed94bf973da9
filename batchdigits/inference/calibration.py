"""Find the confidence threshold that is proven to keep a target error, or say why there is none.

The target is a share of wrong digits among those that are `ok`. «Proven» means: were the true share above the target, a
threshold would be accepted with a probability of at most 5%. It holds for images that come as the validation data did.

Source: Angelopoulos, Bates, Candès, Jordan, Lei, «Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control», 2021, https://arxiv.org/abs/2110.01052: a p-value for each threshold, here the exact one of the binomial
distribution, and fixed-sequence testing from strict to loose, which ends at the first threshold that fails. It begins
where half of the digits pass: further on, a single mistake among few would end it. That looks at confidences alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from batchdigits.errors import UsageError
from batchdigits.settings import (
    EvaluateSettings,
    ExplainSettings,
    PredictSettings,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.05
"""Probability, at most, that a threshold is accepted though the true error is above the target."""

STRICTEST = 0.001
"""The smallest target that is offered: pictures for review are kept from the beginning of what it would ask for."""

LOOSEST = 0.1
"""The largest target that is offered: 0.5 is a slip for 0.5%."""

THRESHOLDS = tuple(
    [round(1 - step / 10_000, 4) for step in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    + [round(1 - step / 1000, 3) for step in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    + [round(1 - step / 200, 3) for step in range(2, 20)]
    + [round(0.90 - step / 50, 2) for step in range(40)]
    + [0.1]  # ten shares that sum to one: nothing is below it
)
"""Confidences, from strict to loose, fixed before any data were seen."""


class ThresholdCounts(NamedTuple):
    """What one threshold did to the validation data."""

    threshold: float
    """Confidence, 0 to 1."""
    passed: int
    """Digits at or above it."""
    wrong: int
    """How many of these were said to be another digit than they are."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes probabilities and decisions of logits, fitted on data that the model was not trained on."""

    temperature: float
    """What the logits are divided by."""
    gate: float
    """Probability, 0 to 1, that a page shows no digit, above which it is said to have none; 1 lets all pass."""
    risks: tuple[ThresholdCounts, ...] = ()
    """What each threshold did to the validation data, from strict to loose; empty where no target error can be kept."""
    reference: tuple[int, ...] = ()
    """How many of these digits have a confidence in each bin of `drift.EDGES`; empty where drift cannot be told."""

    def threshold(self, settings: PredictSettings | EvaluateSettings | ExplainSettings) -> float:
        """Find the confidence below which a digit goes to review: the one that is set, or that keeps the target error.

        Raises:
            UsageError: The validation data cannot prove the target.
        """
        if settings.threshold is not None:
            return settings.threshold
        return loosest_threshold(settings.target_error, self.risks)


def threshold_table(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[ThresholdCounts, ...]:
    """Count what each of `THRESHOLDS` lets pass.

    Args:
        confidence: float64[N], four decimals as in reports; NaN where no digit was said.
        right: bool[N].
    """
    return tuple(
        ThresholdCounts(threshold, int((confidence >= threshold).sum()), int((~right[confidence >= threshold]).sum()))
        for threshold in THRESHOLDS
    )


def loosest_threshold(target: float, risks: Sequence[ThresholdCounts]) -> float:
    """Find the loosest threshold that is proven to keep the target.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        risks: From strict to loose, of a bundle.

    Raises:
        UsageError: The validation data cannot prove it.
    """
    found = None
    for counts in _sequence(risks):
        if probability_of_at_most(counts.wrong, counts.passed, target) > LEVEL:
            break
        found = counts.threshold
    if found is None:
        raise UsageError(_unproven(target, risks))
    return found


def strictest_threshold(risks: Sequence[ThresholdCounts]) -> float:
    """Give the threshold of the smallest target that is offered and proven; 1 where none is."""
    targets = (STRICTEST * step for step in range(1, round(1 / STRICTEST)))
    return next((loosest_threshold(target, risks) for target in targets if _is_provable(target, risks)), 1.0)


_MOST = 1_000_000  # digits that a message reckons with


def least_passing(target: float) -> int:
    """Compute how many digits have to pass without a mistake for a proof."""
    return math.ceil(math.log(LEVEL) / math.log1p(-target))


def probability_of_at_most(wrong: int, passed: int, error: float) -> float:
    """Compute the binomial probability of so few mistakes.

    Args:
        wrong: Mistakes, at most.
        passed: Digits.
        error: The chance of a mistake at each, above 0 and below 1.
    """
    whole = math.lgamma(passed + 1)
    log_error, log_right = math.log(error), math.log1p(-error)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(passed - k + 1) + k * log_error + (passed - k) * log_right
        for k in range(min(wrong, passed) + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _sequence(risks: Sequence[ThresholdCounts]) -> list[ThresholdCounts]:
    """Give the thresholds that are tested, whatever the target."""
    return [risk for risk in risks if 2 * risk.passed >= risks[-1].passed]


def _is_provable(target: float, risks: Sequence[ThresholdCounts]) -> bool:
    first = next(iter(_sequence(risks)), None)
    return first is not None and probability_of_at_most(first.wrong, first.passed, target) <= LEVEL


def _unproven(target: float, risks: Sequence[ThresholdCounts]) -> str:
    first = next(iter(_sequence(risks)), ThresholdCounts(1.0, passed=0, wrong=0))
    held = f"The model's validation data cannot prove the target error {target:.2%}"
    remedy = "allow a larger --target-error, or name the confidence yourself with --threshold"
    found = f"of its surest {first.passed:,} digits {first.wrong:,} are wrong"
    share = first.wrong / max(first.passed, 1)
    if share >= target:
        return f"{held}: {found}, so that more of them would not help; {remedy}."
    needed = max(first.passed, least_passing(target))
    while needed < _MOST and probability_of_at_most(math.ceil(share * needed), needed, target) > LEVEL:
        needed = math.ceil(needed * 1.05)
    about = f"about {needed:,}" if needed < _MOST else f"more than {_MOST:,}"
    return f"{held}: {found}, and it takes {about} at that rate; validate on more, {remedy}."

"""What validation saw in; the threshold that is proven to keep a target error out, or why there is none.

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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from batchdigits.errors import UsageError

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


class Risk(NamedTuple):
    """What one threshold did to the validation data."""

    threshold: float
    """Confidence, 0 to 1."""
    passed: int
    """Digits at or above it."""
    wrong: int
    """How many of these were said to be another digit than they are."""


@dataclass(slots=True)
class Audit:
    """What people found in the sample of rows that are `ok`; copies of an image count once."""

    sample: int = 0
    """Pages in it."""
    answered: int = 0
    """How many of these somebody has answered."""
    wrong: int = 0
    """How many of these were said to be another digit than they are."""
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def add(self, sha256: str, page: int, digit: int, answer: str) -> None:
        """Count a row of the sample."""
        if (sha256, page) not in self._seen:
            self._seen.add((sha256, page))
            self.sample += 1
            self.answered += answer != ""
            self.wrong += answer not in ("", str(digit))

    def interval(self) -> tuple[float, float] | None:
        """Give what the true share of wrong ones may be, at 95%; None before all are answered.

        Those that people looked at first are no sample.
        """
        return wilson_interval(self.wrong, self.answered) if self.answered and self.answered == self.sample else None


def count(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Risk, ...]:
    """Count what each of `THRESHOLDS` lets pass.

    Args:
        confidence: float64[N], four decimals as in reports; NaN where no digit was said.
        right: bool[N].
    """
    return tuple(
        Risk(threshold, int((confidence >= threshold).sum()), int((~right[confidence >= threshold]).sum()))
        for threshold in THRESHOLDS
    )


def threshold(target: float, risks: Sequence[Risk]) -> float:
    """Find the loosest threshold that is proven to keep the target.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        risks: From strict to loose, of a bundle.

    Raises:
        UsageError: The validation data cannot prove it.
    """
    found = None
    for risk in _sequence(risks):
        if probability_of_at_most(risk.wrong, risk.passed, target) > LEVEL:
            break
        found = risk.threshold
    if found is None:
        raise UsageError(_unproven(target, risks))
    return found


def strictest(risks: Sequence[Risk]) -> float:
    """Give the threshold of the smallest target that is offered and proven; 1 where none is."""
    targets = (STRICTEST * step for step in range(1, round(1 / STRICTEST)))
    return next((threshold(target, risks) for target in targets if _is_provable(target, risks)), 1.0)


_MOST = 1_000_000  # digits that a message reckons with


def least_passing(target: float) -> int:
    """Compute how many digits have to pass without a mistake for a proof."""
    return math.ceil(math.log(LEVEL) / math.log1p(-target))


def probability_of_at_most(wrong: int, passed: int, error: float) -> float:
    """Compute the binomial probability of at most `wrong` wrong ones of `passed`, each wrong with chance `error`."""
    whole = math.lgamma(passed + 1)
    log_error, log_right = math.log(error), math.log1p(-error)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(passed - k + 1) + k * log_error + (passed - k) * log_right
        for k in range(min(wrong, passed) + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def wilson_interval(correct: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the score interval of a share: what the true share may be, given `correct` of `count`.

    Unlike the textbook interval (p ± z·σ) it stays within 0 to 1, and has a width even when all or none are right.

    Args:
        correct: Successes, 0 to `count`.
        count: Trials, ≥ 1.
        z: Two-sided quantile of the normal distribution; the default gives 95%.

    Returns:
        Low and high end, 0 to 1.

    Raises:
        ValueError: `correct` is not within 0 to `count`, or `count` is not positive.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927) 209–212.
    """
    if count < 1 or not 0 <= correct <= count:
        message = f"an interval needs 0 ≤ correct ≤ count and count ≥ 1. Received: correct={correct}, count={count}"
        raise ValueError(message)
    share = correct / count
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _sequence(risks: Sequence[Risk]) -> list[Risk]:
    """Give the thresholds that are tested, whatever the target."""
    return [risk for risk in risks if 2 * risk.passed >= risks[-1].passed]


def _is_provable(target: float, risks: Sequence[Risk]) -> bool:
    first = next(iter(_sequence(risks)), None)
    return first is not None and probability_of_at_most(first.wrong, first.passed, target) <= LEVEL


def _unproven(target: float, risks: Sequence[Risk]) -> str:
    first = next(iter(_sequence(risks)), Risk(1.0, passed=0, wrong=0))
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

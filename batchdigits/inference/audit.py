"""Draw the sample of rows that people check, and say what their answers prove."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.bundle import Bundle
from batchdigits.inference.thresholds import least_passing


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


def in_sample(sha256: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Draw files by the sha256 of their bytes, which is as good as by lot, and the same in every run.

    Args:
        sha256: N sums, hexadecimal; an empty one is never drawn.
        share: Of all files, 0 to 1.

    Returns:
        bool[N].
    """
    below = math.ceil(share * 16**_HASH_DIGITS)
    limit = f"{below:0{_HASH_DIGITS}x}" if below < 16**_HASH_DIGITS else "g"  # all sums are before that
    return np.array(["" < text < limit for text in sha256], np.bool_)


HOLDOUT_SHARE = 0.25
"""Share of answered images, drawn by `in_sample`, that no model learns from."""


_OK_SHARE = 0.85  # of the files in a sample, about, that show a digit which is ok
_HASH_DIGITS = 13  # hexadecimal digits that decide; a float64 holds them


def audit_share(model: Bundle, target_error: float, files: int) -> float:
    """Compute the share of files that people should check: as many as prove the target if none that is ok is wrong.

    A model that has learnt from answers is checked on what it did not learn from: the sample is drawn alike.
    """
    most = HOLDOUT_SHARE if "learnt" in model.provenance else 1.0
    return min(most, least_passing(target_error) / _OK_SHARE / max(files, 1))

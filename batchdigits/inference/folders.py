"""Find the threshold that a folder has of its own, by the confidences of its digits alone.

It follows their mean doubt, 1 less the confidence: in a folder of clear digits nearly all pass, in one of doubtful
digits few. Everything is counted on the four decimals that reports show.
"""

import math

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.thresholds import DOUBTS, OWN_THRESHOLDS, DoubtCounts

_STEPS = 10_000  # of a confidence with four decimals


def doubt_table(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[DoubtCounts, ...]:
    """Count what passes of a folder whose own threshold keeps each of `DOUBTS`.

    Args:
        confidence: float64[N], four decimals as in reports; NaN where no digit was said, or it passes nowhere.
        right: bool[N].
    """
    counted = confidence_counts(confidence)
    found = []
    for doubt in DOUBTS:
        threshold = own_threshold(counted, doubt)
        passes = confidence >= (np.inf if threshold is None else threshold)
        found.append(DoubtCounts(doubt, int(passes.sum()), int((~right[passes]).sum())))
    return tuple(found)


def confidence_counts(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count confidences by their value, from 0 to 1: int64[10,001].

    Args:
        confidence: float64[N], four decimals as in reports; NaN counts nowhere.
    """
    return np.bincount(np.rint(confidence[~np.isnan(confidence)] * _STEPS).astype(np.int64), minlength=_STEPS + 1)


def passing(counted: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Give the counts of what is at or above a threshold, a confidence from 0 to 1: int64[M]."""
    return counted[math.ceil(round(threshold * _STEPS, 6)) :]


def mean_doubt(counted: NDArray[np.int64], threshold: float) -> float:
    """Compute the mean of 1 less the confidence of what is at or above a threshold; 0 where nothing is.

    Args:
        counted: int64[10,001], by `confidence_counts`.
        threshold: Confidence, 0 to 1.
    """
    passed = passing(counted, threshold)
    doubt = np.arange(len(passed) - 1, -1, -1)
    return float((passed * doubt).sum()) / _STEPS / max(int(passed.sum()), 1)


def own_threshold(counted: NDArray[np.int64], doubt: float) -> float | None:
    """Find the loosest of `OWN_THRESHOLDS` at which a folder's digits keep a mean doubt; None where none does."""
    kept = None
    for threshold in OWN_THRESHOLDS:
        if mean_doubt(counted, threshold) > doubt:
            break
        kept = threshold
    return kept

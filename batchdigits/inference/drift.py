"""Measure how far the confidences of a run have drifted from those of the validation data.

Source: the population stability index as credit scoring has it: Siddiqi, «Credit Risk Scorecards», Wiley 2006, where
below 0.1 nothing has changed, and from 0.25 on something has.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EDGES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Confidences that part the ten bins."""
LEAST_ROWS = 500
"""New rows from which drift is told; fewer differ by chance."""
_UNSURE = 0.9  # the confidence below which digits are counted to tell whether a drift is to the worse
DRIFTED = 0.25
"""The index from which a run is called different."""


def histogram(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count confidences, float64[N], by the bins between `EDGES`: int64[10]; NaN counts nowhere."""
    bins = np.searchsorted(EDGES, confidence[~np.isnan(confidence)], side="right")
    return np.bincount(bins, minlength=len(EDGES) + 1)


def index(counts: NDArray[np.int64], reference: Sequence[int]) -> float | None:
    """Tell how far a run's new rows have drifted; None where they are too few, or there is no reference.

    Args:
        counts: Of the new rows, by `histogram`.
        reference: Of the validation data.
    """
    if counts.sum() < LEAST_ROWS or not reference:
        return None
    return round(stability_index(counts.tolist(), reference), 4)


def is_worse(counts: NDArray[np.int64], reference: Sequence[int]) -> bool:
    """Tell whether rows have drifted to lower confidences; false of too few, or without a reference.

    Args:
        counts: Of the rows, by `histogram`.
        reference: Of the validation data.
    """
    drifted = index(counts, reference)
    if drifted is None or drifted < DRIFTED:
        return False
    unsure = EDGES.index(_UNSURE)
    return float(counts[: unsure + 1].sum() / counts.sum()) > sum(reference[: unsure + 1]) / sum(reference)


def stability_index(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Compute the population stability index of counts against those of the reference; 0 where they agree.

    A bin that is empty on one side counts as if half a row were in it.
    """
    shares = [[max(count, 0.5) / sum(side) for count in side] for side in (counts, reference)]
    return math.fsum((now - before) * math.log(now / before) for now, before in zip(*shares, strict=True))

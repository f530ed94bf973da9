"""Confidences, and whether each was right, in; how far they can be trusted, in numbers, out."""

import math

import numpy as np
from numpy.typing import NDArray


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

"""Pictures of how far confidences can be trusted: confidences, and whether each was right, in; PNG files out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchdigits.training.evaluation.metrics import percent
from batchdigits.training.evaluation.plots import BLUE, FAINT, ORANGE, figure_in, lay_out
from batchdigits.training.evaluation.reliability import bins_of, calibration_error, risk_coverage

_LEAST = 1e-4  # shares below it are drawn at the edge of the logarithmic axes
_TICKS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def reliability_diagram(confidence: NDArray[np.float64], right: NDArray[np.bool_], path: Path) -> None:
    """Draw what the confidence promises against what is right, by bins of equal count.

    Both axes show the doubt, 1 - confidence, and the error, on logarithmic scales: nearly all digits are nearly sure,
    and would sit in one corner otherwise.

    Args:
        confidence: float64[N]; NaN where no digit was said, which is left out.
        right: bool[N].
        path: The PNG to write.
    """
    counts, sure, hits = bins_of(confidence, right)
    with figure_in(path, 640, 620) as figure:
        lay_out(figure)
        axes = figure.add_subplot()
        axes.plot([_LEAST, 1], [_LEAST, 1], "--", color=FAINT, linewidth=1, label="calibrated")
        doubt, error = np.maximum(1 - sure, _LEAST), np.maximum(1 - hits, _LEAST)
        axes.plot(doubt, error, "o-", color=BLUE, label=f"{len(counts)} bins of equal count")
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("log")
        axes.set_xlim(1, _LEAST / 1.3)  # the surest on the right
        axes.set_ylim(1, _LEAST / 1.3)
        for axis, ticks in ((axes.xaxis, _TICKS[::2]), (axes.yaxis, _TICKS)):
            axis.set_ticks([*ticks, _LEAST], [*(f"{1 - tick:.4g}" for tick in ticks), "1"], minor=False)
            axis.set_ticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("share that is right")
        axes.legend(loc="upper left", frameon=False)
        axes.set_title(
            f"{counts.sum():,} digits, expected calibration error {calibration_error(confidence, right):.2%}"
        )


def risk_coverage_curve(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], path: Path, *, threshold: float | None
) -> None:
    """Draw the error among the surest images against how many these are.

    Args:
        confidence: float64[N]; NaN where no digit was said, which is never covered.
        right: bool[N].
        path: The PNG to write.
        threshold: Confidence whose place on the curve is marked; None marks none.
    """
    from matplotlib.ticker import PercentFormatter

    coverage, error = risk_coverage(confidence, right)
    with figure_in(path, 720, 480) as figure:
        lay_out(figure)
        axes = figure.add_subplot()
        axes.plot(coverage, error, color=BLUE)
        title = f"{len(confidence):,} images"
        if threshold is not None and (passed := int((confidence >= threshold).sum())):
            at = passed - 1
            axes.plot([coverage[at]], [error[at]], "o", color=ORANGE)
            title += f"; from a confidence of {threshold}: {percent(coverage[at])} ok, {error[at]:.2%} of them wrong"
        axes.set_xlim(min(0.5, coverage.min(initial=1.0)) if len(coverage) < 50 else 0.5, 1)
        axes.set_ylim(bottom=0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("coverage: share of the images that are ok")
        axes.set_ylabel("risk: share of these that are wrong")
        axes.set_title(title)

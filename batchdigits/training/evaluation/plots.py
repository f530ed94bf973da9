"""Draw a model and its data: samples, learning curves, confusion, reliability, mistakes.

Matplotlib and seaborn are imported only when a picture is drawn. Figures are made without pyplot, so that no
window system is needed and nothing stays open. The user's matplotlib settings and the clock do not reach the
files: the same input gives the same bytes under the same package versions.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchdigits.records import Digits, GreyImage, InkImages
from batchdigits.training.evaluation.metrics import (
    SAID,
    Evaluation,
    bins_of,
    calibration_error,
    interval_text,
    percent,
    risk_coverage,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


SHEET_LIMIT = 120
"""Images on a contact sheet; nobody looks at more."""

_DPI = 100
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Told apart under every common colour blindness. Source: M. Okabe and K. Ito, "Color Universal Design" (2008)."""
INK, FAINT = "#222222", "#666666"
"""Text on a bright ground, and secondary text."""
_RIGHT = "#dde6ee"
"""The ground of right answers."""
_EMPTY = "#f7f7f7"
"""The ground of a heatmap, seen where a count is zero."""


def heatmap(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix.

    The colour scale belongs to the mistakes: it is logarithmic and starts at one, so that a single mistake is seen
    beside thousands of right answers, which stand on a pale ground of their own. Zeros are left empty.

    Args:
        evaluation: What to draw.
        path: The PNG to write.
    """
    import seaborn
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    counts = evaluation.confusion
    right = np.eye(10, 11, dtype=bool)
    mistakes = np.where(right, 0, counts)
    most = max(10, int(mistakes.max()))  # at least a decade: two mistakes in a cell are not the dark end
    norm = LogNorm(1, most)
    with figure_in(path, 940, 800) as figure:
        lay_out(figure)
        axes = figure.add_subplot()
        axes.set_facecolor(_EMPTY)
        layer = partial(seaborn.heatmap, counts, ax=axes, square=True, linewidths=1, cbar=False, xticklabels=SAID)
        layer(mask=~right, cmap=ListedColormap([_RIGHT]))
        # vmin and vmax repeat the norm: without them seaborn looks for the smallest of no mistakes, and warns
        layer(mask=mistakes == 0, cmap="flare", norm=norm, vmin=1, vmax=most)
        for row, column in np.argwhere((counts > 0) | right):
            color = "white" if mistakes[row, column] > most**0.4 else INK  # seaborn's own choice is hard to read
            weight = "normal" if row == column else "bold"
            count = f"{counts[row, column]:,}"
            axes.text(column + 0.5, row + 0.5, count, ha="center", va="center", color=color, weight=weight)
        bar = figure.colorbar(ScalarMappable(norm, "flare"), ax=axes, shrink=0.8, label="mistakes (logarithmic scale)")
        _logarithmic_ticks(bar.ax.yaxis)
        axes.axvline(10, color=FAINT, linewidth=1)  # what follows is not a digit
        axes.tick_params(length=0, labelrotation=0)
        axes.set_xlabel("digit said")
        axes.set_ylabel("true digit")
        axes.set_title(
            f"Accuracy {percent(evaluation.accuracy)} ({evaluation.correct:,} of {evaluation.count:,} right)\n"
            f"{interval_text(evaluation)}"
        )


def learning_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss and accuracy of the training and validation part by epoch.

    Args:
        history: A record an epoch, as read from the JSON lines of a run, with the numbers `epoch`, `loss`, `accuracy`,
            `val_loss` and `val_accuracy`; accuracies are shares of 0 to 1. Other keys are ignored.
        path: The PNG to write.

    Raises:
        ValueError: There is no record.
    """
    from matplotlib.ticker import PercentFormatter

    if not history:
        message = "learning curves need at least one epoch. Received: an empty history"
        raise ValueError(message)
    epochs = [record["epoch"] for record in history]
    best = max(history, key=lambda record: record["val_accuracy"])
    with figure_in(path, 1000, 420) as figure:
        lay_out(figure)
        left, right = figure.subplots(1, 2)
        _curves(left, epochs, history, "loss")
        _curves(right, epochs, history, "accuracy")
        if all(record[key] > 0 for record in history for key in ("loss", "val_loss")):
            left.set_yscale("log")
            _logarithmic_ticks(left.yaxis)
        right.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        right.set_title(f"Accuracy: best validation {percent(best['val_accuracy'])}, epoch {best['epoch']:.0f}")
        left.set_title("Loss")
        right.legend(loc="lower right")
        left.legend(loc="upper right")


def contact_sheet(
    images: Sequence[GreyImage] | InkImages, captions: Sequence[str], path: Path, *, columns: int = 12, title: str
) -> None:
    """Draw images beside each other, each with its caption, such as the mistakes of a model.

    No images give a sheet that says so. After `SHEET_LIMIT` images the title counts those that were left out.

    Args:
        images: Grey images uint8[H, W] of any sizes, 0 is black; each is fitted into a square.
        captions: A caption an image, of one or two lines; long lines are cut.
        path: The PNG to write.
        columns: Images in a row, ≥ 1.
        title: The line above the images.

    Raises:
        ValueError: There are more or fewer captions than images.
    """
    if len(images) != len(captions):
        message = f"each image needs one caption. Received: {len(images)} images, {len(captions)} captions"
        raise ValueError(message)
    side, cell_width, cell_height, margin, top = 84, 108, 122, 12, 48  # pixels; 84 is three times 28
    shown = min(len(images), SHEET_LIMIT)
    rows = max(1, -(-shown // columns))
    if shown < len(images):
        title = f"{title} (the first {shown}, and {len(images) - shown:,} more)"
    with _pixel_axes(path, 2 * margin + columns * cell_width, top + rows * cell_height + margin) as axes:
        axes.text(margin + 12, 24, title, fontsize=11, va="center", parse_math=False)
        if not shown:
            axes.text(margin + 12, top + 20, "No images.", fontsize=9, va="center", color=FAINT)
        for index in range(shown):
            row, column = divmod(index, columns)
            x, y = margin + column * cell_width + (cell_width - side) // 2, top + row * cell_height
            _tile(axes, images[index], x, y, side)
            lines = "\n".join(_cut(line, 17) for line in captions[index].splitlines()[:2])
            axes.text(x + side / 2, y + side + 5, lines, fontsize=7.5, ha="center", va="top", parse_math=False)


def sample_grid(images: InkImages, labels: Digits, path: Path) -> None:
    """Draw the first ten images of each digit, a row a digit, beside how many images it has.

    Args:
        images: Bright ink on 0, uint8[N, 28, 28].
        labels: Their digits, [N], 0 to 9.
        path: The PNG to write.
    """
    side, pitch, left, top = 56, 60, 56, 48  # pixels; 56 is twice 28
    with _pixel_axes(path, left + 10 * pitch + 128, top + 10 * pitch + 12) as axes:
        axes.text(left, 24, f"The first ten of each digit, of {len(labels):,} images", fontsize=11, va="center")
        for digit in range(10):
            y = top + digit * pitch
            of_digit = np.flatnonzero(labels == digit)
            axes.text(left / 2, y + side / 2, str(digit), fontsize=15, ha="center", va="center")
            count = f"{of_digit.size:,} image{'' if of_digit.size == 1 else 's'}"
            axes.text(left + 10 * pitch + 8, y + side / 2, count, fontsize=9, va="center", color=FAINT)
            for column, index in enumerate(of_digit[:10]):
                _tile(axes, images[index], left + column * pitch, y, side)


@contextmanager
def figure_in(path: Path, width: int, height: int) -> Iterator["Figure"]:
    """Give an empty figure of width × height pixels, and write it to `path` when the block ends without error."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box in a caption will do
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())


def lay_out(figure: "Figure") -> None:
    """Keep labels from overlapping and from touching the picture's edge."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))  # inches


@contextmanager
def _pixel_axes(path: Path, width: int, height: int) -> Iterator["Axes"]:
    """Give axes that fill a figure, whose unit is a pixel and whose origin is the upper left corner."""
    with figure_in(path, width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        yield axes


def _tile(axes: "Axes", image: GreyImage, x: float, y: float, side: int) -> None:
    """Fit an image into the square with its upper left corner at (x, y), whole pixels where it is 28×28."""
    height, width = image.shape
    longer = max(height, width)
    dx, dy = side * (1 - width / longer) / 2, side * (1 - height / longer) / 2
    extent = (x + dx, x + side - dx, y + side - dy, y + dy)
    interpolation = "nearest" if longer <= side else "hanning"  # enlarged: its own pixels; reduced: no aliasing
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation=interpolation)


def _curves(axes: "Axes", epochs: Sequence[float], history: Sequence[Mapping[str, float]], quantity: str) -> None:
    """Draw one quantity of both parts; colour, marker and dashes each tell them apart."""
    from matplotlib.ticker import MaxNLocator

    training = [record[quantity] for record in history]
    validation = [record[f"val_{quantity}"] for record in history]
    axes.plot(epochs, training, "o-", color=BLUE, markersize=4, label="training")
    axes.plot(epochs, validation, "s--", color=ORANGE, markersize=4, label="validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic_ticks(axis: "Axis") -> None:
    """Label 1, 2 and 5 of each decade in plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _cut(line: str, length: int) -> str:
    return line if len(line) <= length else f"{line[: length - 1]}…"


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

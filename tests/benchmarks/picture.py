"""The numbers of `speed.py` in; the picture of them in README.md out.

`python -m tests.benchmarks.picture speed.json jobs/pictures/speed.png` draws it. On the left each group of bars is a
kind of files; on the right stands how the time of an image, and memory, grow with the number of images.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import typer

from batchdigits.training.evaluation.plots import BLUE, ORANGE, figure_in, lay_out
from tests.benchmarks import floor, parts, peers
from tests.benchmarks.parts import FIRST_RUN, of_runtime
from tests.benchmarks.rounds import Line, Lines, lines_of
from tests.benchmarks.scans import KINDS, Kind
from tests.benchmarks.tables import OF_FLOOR, PEAK_MB, growth_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, GREEN, SKY = "#BBBBBB", "#009E73", "#56B4E9"
"""The colours beside `BLUE` and `ORANGE`; the last two are Okabe's and Ito's too."""
FLOOR = "the floor: read and decode only"
BARS = {
    FLOOR: (FLOOR, GREY),
    "litert": ("batchdigits, litert", ORANGE),
    "keras": ("batchdigits, keras", BLUE),
    peers.DATASET: ("Keras: image_dataset_from_directory + predict", GREEN),
    peers.LOOP: ("one at a time: imread + predict", SKY),
}
"""The bars of a group in order: their names in the legend, and their colours."""
WIDTH = 0.84 / len(BARS)
"""Of a bar, where groups are one apart."""
MARKERS = {"litert": "o", "keras": "s"}


def main(numbers: Path, picture: Path) -> None:
    """Draw the picture."""
    measured = {part: lines_of(lines) for part, lines in json.loads(numbers.read_text())["parts"].items()}
    draw(measured, picture)


def draw(measured: Mapping[str, Lines], path: Path) -> None:
    """Draw what was measured.

    Args:
        measured: Lines by part.
        path: The PNG to write.
    """
    with figure_in(path, 1300, 600) as figure:
        lay_out(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
        speeds(figure.add_subplot(grid[:, 0]), measured)
        above, below = (figure.add_subplot(grid[row, 1]) for row in range(2))
        sizes = {size: measured[name] for size in parts.SIZES if (name := growth_part(size)) in measured}
        grown(above, sizes, lambda line, size: [1e6 * one / size for one in line.seconds])
        grown(below, sizes, lambda line, _: line.tree_mb)
        above.set_title("Growth: distinct images, loading left out")
        above.set_ylabel("µs an image")
        above.legend(loc="lower left", frameon=False)
        for runtime, limit in PEAK_MB.items():
            below.axhline(limit, color=BARS[runtime][1], linestyle=":", linewidth=1)
        for axes in (above, below):
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        below.set_ylabel("peak memory, MB (dotted: limit)")
        below.set_xlabel("images")


def speeds(axes: "Axes", measured: Mapping[str, Lines]) -> None:
    """Draw a group of bars for each kind of files."""
    from matplotlib.ticker import StrMethodFormatter

    kinds = [kind for kind in KINDS if kind.folder in measured]
    axes.set_yscale("log")
    for place, (name, (label, colour)) in enumerate(BARS.items()):
        offset = (place - (len(BARS) - 1) / 2) * WIDTH
        axes.bar(0, 0, color=colour, label=label)  # for the legend, whatever the first group has
        for at, kind in enumerate(kinds):
            bar(axes, at + offset, name, kind, measured[kind.folder])
    axes.plot([], [], color="black", linewidth=2, label="target")
    axes.set_xticks(range(len(kinds)), [f"{kind.files:,} files\n{kind.name}" for kind in kinds])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 15)  # room for the legend
    axes.set_ylabel("speed, × the floor (logarithmic scale)")
    axes.set_title("Pages per second in those of the floor, loading and importing left out")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, ncols=2)


def bar(axes: "Axes", x: float, name: str, kind: Kind, lines: Lines) -> None:
    """Draw one bar with its number, and its target; where a peer cannot read such files there is none."""
    fastest = floor.quickest(lines)[1]
    line = fastest if name == FLOOR else lines.get(name)
    if line is None:
        return
    share = line.rate / fastest.rate
    axes.bar(x, share, WIDTH * 0.92, color=BARS[name][1])
    text = f"{line.rate:,.0f}/s" if name == FLOOR else f"{share:.2g}" if share >= 0.001 else f"{share:.4f}"
    above = (0, 3)  # points
    axes.annotate(text, (x, share), above, textcoords="offset points", ha="center", va="bottom", fontsize=8)
    if target := OF_FLOOR.get((kind.folder, name)):
        axes.plot([x - WIDTH / 2, x + WIDTH / 2], [target, target], color="black", linewidth=2)


def grown(axes: "Axes", sizes: Mapping[int, Lines], figures: Callable[[Line, int], Sequence[float]]) -> None:
    """Draw how figures of the first run grow with the number of images: their medians, and bars over their range."""
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    for runtime, marker in MARKERS.items():
        name = of_runtime(FIRST_RUN, runtime)
        of_sizes = {size: figures(lines[name], size) for size, lines in sizes.items() if name in lines}
        if not of_sizes:
            continue
        middles = [median(values) for values in of_sizes.values()]
        below = [middle - min(values) for middle, values in zip(middles, of_sizes.values(), strict=True)]
        above = [max(values) - middle for middle, values in zip(middles, of_sizes.values(), strict=True)]
        colour = BARS[runtime][1]
        axes.errorbar(list(of_sizes), middles, [below, above], marker=marker, color=colour, capsize=3, label=runtime)
    axes.set_xscale("log")
    axes.set_xticks(list(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    typer.run(main)

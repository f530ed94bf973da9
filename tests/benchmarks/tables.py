"""What was measured in; the rows of one table, each with its target and whether it is reached, out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from tests.benchmarks import costs, floor, parts, peers
from tests.benchmarks.forward import BATCH, CONVNET
from tests.benchmarks.parts import of_runtime
from tests.benchmarks.rounds import Line, Lines
from tests.benchmarks.scans import JPEGS, KINDS, SCANS, SMALL, Kind

OF_FLOOR = {(SMALL.folder, "litert"): 0.22, (SCANS.folder, "litert"): 0.80}
"""Share of the floor's images per second, at least, by folder and runtime."""
OF_PEER = {(SMALL.folder, "litert"): 2.8, (SMALL.folder, "keras"): 2.0, (JPEGS.folder, "litert"): 1.0}
"""Images per second, at least, in those of the Keras peer."""
OF_PEER_ELSE = 1.5
"""The same of LiteRT with other kinds of files."""
LOOKED, APART = 1.05, "the search for ink left out"
"""How many times as many images a second there are without the ink finder, from which both are shown, and the latter
judged: what that network costs is the price of its accuracy, and no matter of the data path."""
SECONDS = {
    parts.HELP: 0.5,
    of_runtime(parts.FEW_NEW, "litert"): 0.5,
    of_runtime(parts.FEW_NEW, "keras"): 2.6,
    of_runtime(parts.NOTHING_NEW, "litert"): 0.3,
    of_runtime(parts.NOTHING_NEW, "keras"): 0.3,
}
"""From shell to shell, at most."""
OF_IMPORT = {of_runtime(parts.ALL, "keras"): 1.0, of_runtime(parts.ALL, "litert"): 0.26}
"""Seconds from shell to shell, at most, in those of TensorFlow's own import: 0.9 s on a machine that takes 3.47."""
PEAK_MB = {"keras": 1200, "litert": 300}
"""Peak memory of all processes, at most, in 10^6 bytes."""
MORE = 1.1
"""Seconds an image, and peak memory, of the largest sizes, at most, in those of `parts.BASE` images."""
LARGEST_MB, LARGEST_SECONDS = 150, 8
"""The peak of LiteRT's first run over the most images, at most, and the seconds of one that finds nothing new."""

Parts = Mapping[str, Lines]
"""What was measured, by the name of the part."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    of: str
    """The files."""
    what: str
    """Who went through them."""
    measured: str
    """Median, lowest and highest, with the unit."""
    compared: str = ""
    """The median in that of another, of the same run."""
    target: str = ""
    """What it should be."""
    reached: bool | None = None
    """Whether it is; None without a target."""


def rows(measured: Parts) -> Iterator[Row]:
    """Give all rows of the parts that were measured, in the table's order."""
    for kind in KINDS:
        if kind.folder in measured:
            yield from of_kind(kind, measured[kind.folder])
    if "core" in measured:
        yield from of_core(measured["core"])
    if "shell" in measured:
        yield from of_shell(measured["shell"])
    if "memory" in measured:
        yield from of_memory(measured["memory"])
    yield from of_growth({size: measured[name] for size in parts.SIZES if (name := growth_part(size)) in measured})


def growth_part(size: int) -> str:
    """Name the part that goes through so many distinct images."""
    return f"growth {size}"


def markdown(all_rows: Sequence[Row]) -> str:
    """Spell rows as a table; what stands in the row above is not repeated."""
    lines = ["| | | median (lowest–highest) | compared | target | |", "| --- | --- | ---: | ---: | ---: | --- |"]
    above = ""
    for row in all_rows:
        verdict = {True: "reached", False: "**not reached**", None: ""}[row.reached]
        of = "" if row.of == above else row.of
        lines.append(f"| {of} | {row.what} | {row.measured} | {row.compared} | {row.target} | {verdict} |")
        above = row.of
    return "\n".join(lines)


def spelled(values: Sequence[float], unit: str) -> str:
    """Spell the median of some values, their range, and the unit."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
    return f"{number(median(values))} {unit}{spread}"


def at_most(ratio: float, limit: float | None, of: str) -> tuple[str, str, bool | None]:
    """Spell a comparison and its target, and judge it; a ratio of 1 is what the others are compared with."""
    if ratio == 1:
        return "1", "", None
    if limit is None:
        return f"{ratio:.2f} × {of}", "", None
    return f"{ratio:.2f} × {of}", f"≤ {limit:g}", ratio <= limit


# ---- each part -----------------------------------------------------------------------------------------------------


def of_kind(kind: Kind, lines: Lines) -> Iterator[Row]:
    """Set the program and its peers against the floor."""
    of = f"{kind.files:,} × {kind.name}"
    way, quickest = floor.quickest(lines)
    yield Row(of, f"the floor: {way}", spelled(quickest.rates, "/s"), "1")
    dataset = lines.get(peers.DATASET)
    for name, line in lines.items():
        if name.startswith(floor.FLOOR):
            continue
        key, is_peer = (kind.folder, name), name in (peers.DATASET, peers.LOOP)
        of_floor, of_peer = OF_FLOOR.get(key), OF_PEER.get(key, OF_PEER_ELSE if name == "litert" else None)
        is_apart = bool(line.other_rates) and median(line.other_rates) > LOOKED * line.rate
        for rates, how in [(line.rates, ""), *([(line.other_rates, f", {APART}")] if is_apart else [])]:
            compared = [(median(rates) / quickest.rate, of_floor, "floor")]
            if dataset and not is_peer:
                compared += [(median(rates) / dataset.rate, of_peer, "peer")]
            targets = [(ratio, least) for ratio, least, _ in compared if least and is_apart == bool(how)]
            yield Row(
                of,
                f"{'' if is_peer else 'batchdigits, '}{name}{how}",
                spelled(rates, "/s"),
                ", ".join(f"{ratio:.2g} × {other}" for ratio, _, other in compared),
                ", ".join(f"≥ {least:.2g}" for _, least in targets),
                all(ratio >= least for ratio, least in targets) if targets else None,
            )


def of_core(lines: Lines) -> Iterator[Row]:
    """Set the program's first stages against plain decoding, and its model against the usual convnet."""
    for share in costs.SHARES:
        plain = lines[costs.line_of(share.kind, costs.DECODE)]
        for name, limit in ((costs.DECODE, None), (costs.OWN_DECODE, None), (costs.NORMALISE, share.target)):
            line = lines[costs.line_of(share.kind, name)]
            judged = at_most(line.median / plain.median, limit, "its time")
            yield Row(f"{share.kind.name}, in memory, one core", name, spelled(line.rates, "/s"), *judged)
    usual = lines[of_runtime(parts.FORWARD, CONVNET)]
    for name, line in lines.items():
        if name.startswith(parts.FORWARD):
            who = name.removeprefix(f"{parts.FORWARD}, ")
            of = f"forward pass, one thread, {BATCH} a batch"
            yield Row(of, who, spelled(line.rates, "/s"), *at_most(line.rate / usual.rate, None, "convnet"))


def of_shell(lines: Lines) -> Iterator[Row]:
    """Judge the seconds from shell to shell."""
    tensorflow = lines[parts.IMPORT]
    for name, line in lines.items():
        ratio = line.median / tensorflow.median
        if name in SECONDS:
            limit = SECONDS[name]
            judged = f"{ratio:.2f} × import", f"≤ {limit:g} s", line.median <= limit
        else:
            judged = at_most(ratio, OF_IMPORT.get(name), "import")
        yield Row("from shell to shell", name, spelled(line.seconds, "s"), *judged)


def of_memory(lines: Lines) -> Iterator[Row]:
    """Judge the peaks over each kind of files."""
    for name, line in lines.items():
        limit = PEAK_MB[name.rpartition(", ")[2]]
        yield Row("peak memory, all processes", name, peak(line), "", f"< {limit:,} MB", median(line.tree_mb) < limit)


def of_growth(sizes: Mapping[int, Lines]) -> Iterator[Row]:
    """Judge how the time of an image, and the peak, grow with the number of images."""
    base = sizes.get(parts.BASE)
    for name in next(iter(sizes.values()), {}):
        first = name.startswith(parts.FIRST_RUN)
        for size, lines in sizes.items():
            line = lines[name]
            time = [1e6 * one / size for one in line.seconds] if first else line.seconds
            measured = f"{spelled(time, 'µs an image' if first else 's')}; {peak(line)}"
            row = partial(Row, f"distinct images: {name}", f"{size:,}", measured)
            if base is None or size <= parts.BASE:
                yield row()
                continue
            longer = line.median / size / (base[name].median / parts.BASE)
            larger = median(line.tree_mb) / median(base[name].tree_mb)
            compared, target, reached = f"{larger:.2f} × memory", f"≤ {MORE:g}", larger <= MORE
            if first:
                compared, target = f"{longer:.2f} × time, {compared}", f"≤ {MORE:g}, {target}"
                reached = reached and longer <= MORE
            if size == parts.SIZES[-1] and not first:
                target, reached = f"{target}, {LARGEST_SECONDS} s", reached and line.median <= LARGEST_SECONDS
            elif size == parts.SIZES[-1] and name.endswith("litert"):
                target, reached = f"{target}, {LARGEST_MB} MB", reached and median(line.tree_mb) <= LARGEST_MB
            yield row(f"{compared} of {parts.BASE:,}", target, reached)


def peak(line: Line) -> str:
    """Spell the peak of all processes, and that of the first one."""
    return f"{spelled(line.tree_mb, 'MB')}, main process {median(line.main_mb):,.0f}"

"""Say how a run ended, to a person: a few lines that fit a terminal of 80 columns and the mail of cron.

What was found, what was written, what to do next, and what failed; each line begins with what it is about.
"""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from batchdigits.errors import FaultKind, escaped
from batchdigits.monitoring import Summary
from batchdigits.settings import STDOUT

_COLUMNS = 79  # that a line has; a terminal of 80 may break one that is full
_MOST_OF_A_NAME = 34  # characters
_WITHOUT_A_DIGIT = ("blank", "not_a_digit")


def closing(summary: Summary, outputs: Sequence[str], *, verbose: bool = False) -> str:
    """Say how a run ended.

    Args:
        summary: Its numbers.
        outputs: Its reports as the user named them; `-` is standard output.
        verbose: Whether what the `ok` rows are worth, and the time of each stage, is told too.

    Returns:
        Lines, without an end of the last.
    """
    files = [output for output in outputs if output != STDOUT]
    lines = [_counts(summary), *_asides(summary)]
    if verbose or summary.trust.passed or summary.trust.expected is not None:
        lines.append(f"Trust: {summary.trust.words()}")
    if files:
        lines.append(f"{'Up to date:' if summary.is_kept else 'Wrote'} {', '.join(map(escaped, files))}")
    if summary.left:
        lines.append(f"Next: {_next(summary, files)}")
    if summary.failed:
        lines.append(_failures(summary))
    if verbose:
        lines.append(_timings(summary))
    return "\n".join(map(_wrapped, lines))


def corrected(summary: Summary, outputs: Sequence[str]) -> str:
    """Say what is answered and what is left, once answers were taken into the reports.

    Args:
        summary: What the reports hold now.
        outputs: Their names.
    """
    doubtful, audit = _left(summary)
    lines = [
        f"{summary.rows['answered']:,} answered, {doubtful:,} left{f', {audit:,} to audit' if audit else ''}",
        f"Wrote {', '.join(map(escaped, outputs))}",
    ]
    if summary.left:
        lines.append(f"Next: {_next(summary, outputs)}")
    return "\n".join(map(_wrapped, lines))


def _counts(summary: Summary) -> str:
    rows = summary.rows
    found = _counted(summary.files, "image")
    if rows.total() != summary.files:
        found += f", {_counted(rows.total(), 'page')}"
    if summary.pending != summary.files:
        found += f", {summary.pending:,} of them new or changed"
    parts = [f"{rows['ok']:,} read"]
    parts += [f"{rows['answered']:,} answered"] if rows["answered"] else []
    parts += [f"{rows['review']:,} to check"] if rows["review"] else []
    without = sum(rows[status] for status in _WITHOUT_A_DIGIT)
    parts += [f"{without:,} without a digit"] if without else []
    if failed := _failed(summary):
        new = f" ({summary.faulty:,} of them new)" if 0 < summary.faulty < failed else ""
        parts.append(f"{failed:,} failed{new}")
    return f"{found}: {', '.join(parts)}"


def _asides(summary: Summary) -> Iterator[str]:
    """Say what has no row."""
    if summary.deferred:
        yield f"Left to the next run: {_counted(summary.deferred, 'image')} that may still be being written"
    if summary.skipped:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in summary.skipped.most_common())
        yield f"Skipped: {reasons}"


def _next(summary: Summary, files: Sequence[str]) -> str:
    """Say where people look at what is left."""
    doubtful, audit = _left(summary)
    some = f"{doubtful:,} to look at"
    left = ", ".join([some] * bool(doubtful) + [f"{audit:,} to audit"] * bool(audit))
    if pages := _ending_in(".html", files):
        return f"open {escaped(pages[0])} ({left})"
    if books := _ending_in(".xlsx", files):
        return f"open {escaped(books[0])}, sheet Review ({left})"
    return f"add -o report.html to check what is doubtful ({some if doubtful else left})"


def _left(summary: Summary) -> tuple[int, int]:
    """Count what is doubtful and not answered, and what is left of the audit sample."""
    doubtful = sum(summary.rows[status] for status in ("review", *_WITHOUT_A_DIGIT))
    return doubtful, summary.left - doubtful


def _failures(summary: Summary) -> str:
    """Name the first pages that failed, each with its status."""
    names = [f"{_end_of(path)} ({status.replace('_', ' ')})" for path, status in summary.failed]
    rest = _failed(summary) - len(names)
    return f"Failed: {', '.join(names)}{f' and {rest:,} more' if rest else ''}, see column detail"


def _end_of(path: str) -> str:
    return path if len(path) <= _MOST_OF_A_NAME else f"…{path[1 - _MOST_OF_A_NAME :]}"


def _timings(summary: Summary) -> str:
    rate = f", {summary.pending / summary.elapsed:,.0f} images/s" if summary.pending and summary.elapsed else ""
    stages = ", ".join(f"{name} {seconds / summary.elapsed:.0%}" for name, seconds in summary.seconds.items())
    return f"Time: {summary.elapsed:.1f} seconds{rate}; at work: {stages}"


def _failed(summary: Summary) -> int:
    return sum(summary.rows[kind] for kind in FaultKind)


def _ending_in(ending: str, files: Sequence[str]) -> list[str]:
    return [file for file in files if PurePath(file).suffix.lower() == ending]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _wrapped(line: str) -> str:
    return textwrap.fill(line, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)

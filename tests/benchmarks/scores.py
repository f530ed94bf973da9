"""Count what a model says of sets of pages, and spell the counts as tables and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference.audit import wilson_interval
from batchdigits.records import NO_DIGIT, Status
from tests.benchmarks.reading import Answers, PageSet

DIGIT_COLUMNS = ("right", "95% interval", "right and ok", "ok", "wrong of ok", "blank", "no digit")
OTHER_COLUMNS = ("ok", "95% interval", "review", "no digit", "blank", "blank though written on")

_NAME_WIDTH = 44


@dataclass(frozen=True, slots=True)
class Score:
    """How many pages of a set were answered how."""

    name: str
    group: str
    """With which other sets it is added up; none without."""
    has_digits: bool
    """Each page shows one digit; else none does."""
    pages: int
    right: int
    """Pages whose digit is the likeliest of the ten, whatever their status."""
    said: int
    """Pages whose digit stands in the report, `ok` or in review."""
    right_ok: int
    """Pages that are `ok`, with the right digit."""
    ok: int
    review: int
    blank: int
    not_a_digit: int
    blank_though_written: int
    """Pages with print or writing that are called blank."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the main figure: of digits the right ones, of other pages those that are `ok`."""
        return wilson_interval(self.right if self.has_digits else self.ok, self.pages)


def score(some: PageSet, found: Answers) -> Score:
    """Count the answers of one set."""
    none = np.full(len(some.pages), NO_DIGIT, np.int8)
    labels = none if some.labels is None else some.labels
    has_digits = some.labels is not None
    said = (found.digit == labels) & has_digits
    blank, ok = found.status == Status.BLANK.value, found.status == Status.OK.value
    return Score(
        some.name,
        some.group,
        has_digits,
        len(some.pages),
        int((found.likeliest == labels).sum()) if has_digits else 0,
        int(said.sum()),
        int((said & ok).sum()),
        int(ok.sum()),
        int((found.status == Status.REVIEW.value).sum()),
        int(blank.sum()),
        int((found.status == Status.NOT_A_DIGIT.value).sum()),
        int(blank.sum()) if some.has_writing else 0,
    )


def mistakes(some: PageSet, found: Answers) -> NDArray[np.intp]:
    """Find the pages that a person would look at: a digit not read or thrown away; something else that is `ok`."""
    blank, ok = found.status == Status.BLANK.value, found.status == Status.OK.value
    if some.labels is None:
        return np.flatnonzero(ok | (blank & some.has_writing))
    return np.flatnonzero((found.likeliest != some.labels) | (found.digit == NO_DIGIT))


def together(scores: Sequence[Score]) -> list[Score]:
    """Add up the counts of the sets of each group."""
    counts = [field.name for field in fields(Score) if field.name not in {"name", "group", "has_digits"}]
    groups = {one.group: [other for other in scores if other.group == one.group] for one in scores if one.group}
    return [
        replace(some[0], name=group, group="", **{count: sum(getattr(one, count) for one in some) for count in counts})
        for group, some in groups.items()
    ]


def record(one: Score) -> dict[str, object]:
    """Give a score as JSON has it: its counts, and the interval of its main figure."""
    return {**asdict(one), "interval_95": [round(end, 6) for end in one.interval]}


def heading(title: str, *, has_digits: bool) -> str:
    """Name the columns of a table."""
    columns = DIGIT_COLUMNS if has_digits else OTHER_COLUMNS
    rule = f"|{' --- |'}{' ---: |' * (1 + len(columns))}"
    return f"\n{_line(title, ['pages', *columns], columns)}\n{rule}"


def line(one: Score) -> str:
    """Spell a score as a line of its table."""
    low, high = one.interval
    interval = f"{low:.2%}–{high:.2%}"
    shares: list[int | str]
    if one.has_digits:
        wrong_of_ok = f"{1 - one.right_ok / one.ok:.2%}" if one.ok else "–"
        shares = [one.right, interval, one.right_ok, one.ok, wrong_of_ok, one.blank, one.not_a_digit]
        return _line(one.name, [f"{one.pages:,}", *_spelled(shares, one.pages)], DIGIT_COLUMNS)
    shares = [one.ok, interval, one.review, one.not_a_digit, one.blank]
    cells = [f"{one.pages:,}", *_spelled(shares, one.pages), str(one.blank_though_written)]
    return _line(one.name, cells, OTHER_COLUMNS)


def _spelled(cells: Sequence[int | str], pages: int) -> list[str]:
    """Spell counts as shares of all pages; text stays."""
    return [cell if isinstance(cell, str) else f"{cell / pages:.2%}" for cell in cells]


def _line(name: str, cells: Sequence[str], columns: Sequence[str]) -> str:
    """Set a line of a table, so that it can be read before it is rendered, too."""
    widths = [7, *(max(len(column), 15 if "interval" in column else 7) for column in columns)]
    set_right = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join([f'{name:{_NAME_WIDTH}}', *set_right])} |"

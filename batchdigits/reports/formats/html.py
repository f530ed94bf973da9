"""Write the review page: one HTML file on which a person checks the pages that need it.

The file opens from a disk and fetches nothing. What comes from the images' names and pictures is data in it, never
markup: it stands in JSON without any character that HTML knows, and the page's script shows it as text. The browser
is told to run the one script that stands here, by its hash, and nothing else. Only what is shown is held in memory.
"""

import hashlib
import heapq
import json
import math
import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from batchdigits.errors import FaultKind
from batchdigits.inference.decisions import MAY_BE_NO_DIGIT
from batchdigits.inference.trust import TARGETS
from batchdigits.records import Status
from batchdigits.reports.schema import About, Rows
from batchdigits.settings import ReportSettings

REVIEW, NO_DIGIT, LIKELY, AUDIT = "review", "no_digit", "likely", "audit"
"""The parts of the page, in their order: unsure digits, pages without one, the least sure of the sure ones, at which
nobody has to look, and the sample of the sure ones."""

_BLOCK = 200  # pictures in one element; the page decodes a block when one of them comes into sight
_MOST_LIKELY = 60  # images that are most likely wrong among the sure ones
_MOST_FAILED = 100  # pages that could not be read, and are named
_PARTS = (REVIEW, NO_DIGIT, LIKELY, AUDIT)
_FAULTS = frozenset(FaultKind)
_KINDS = (Status.REVIEW.value, Status.NOT_A_DIGIT.value, Status.BLANK.value, Status.OK.value)
_ESCAPED = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


@dataclass(frozen=True, slots=True)
class _Item:
    """One image on the page."""

    part: int
    """Where in `_PARTS` it stands."""
    verdict: str
    """`review`, `not_a_digit`, `blank` or `ok`; answered ones keep their place."""
    digit: int
    """What it was read as; -1 where it has none."""
    shown: dict[str, Any]
    """What the page tells of it, ready for JSON."""
    thumbnail: bytes
    """A PNG; empty where there is none."""

    def order(self) -> tuple[object, ...]:
        """Tell its place: equal digits together, first what may be no digit, then the least sure."""
        shown = self.shown
        is_digit = MAY_BE_NO_DIGIT not in shown["detail"]
        return self.part, *self.group(), is_digit, shown["confidence"] or 0.0, shown["path"], shown["page"]

    def group(self) -> tuple[int, int]:
        """Tell which images it stands among."""
        return _KINDS.index(self.verdict), self.digit


class HtmlReport:
    """A review page being written."""

    def __init__(self, handle: BinaryIO, about: About, settings: ReportSettings) -> None:
        """Prepare to write.

        Args:
            handle: Where the bytes go; stays open.
            about: The page tells the threshold, the target and the model.
            settings: Says where the paths of rows begin, for links to the originals.
        """
        self._handle = handle
        self._about = about
        self._links = _Links(settings.originals, Path(handle.name).parent) if settings.originals else None
        self._items: list[_Item] = []
        self._likely: list[_Item] = []
        self._failed: list[dict[str, Any]] = []
        self._statuses: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Begin; nothing is written before all rows are known, since the page sorts them."""
        return self

    def write(self, rows: Rows) -> None:
        """Take a chunk of rows, and keep those that a person should see."""
        self._statuses.update(rows.status)
        self._items += _items(rows, self._links)
        doubtful = [*self._likely, *_likely(rows, self._links)]
        self._likely = heapq.nsmallest(_MOST_LIKELY, doubtful, key=lambda item: item.shown["confidence"])
        self._failed += islice(_failed(rows), _MOST_FAILED - len(self._failed))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the page; after an exception, nothing."""
        if error is None:
            items = sorted([*self._items, *self._likely], key=_Item.order)
            for text in _page(items, self._failed, self._about, self._statuses):
                self._handle.write(text.encode())


class _Links:
    """Spells the originals of rows as a page in another folder links to them."""

    def __init__(self, folder: str, start: Path) -> None:
        """Say where the paths of rows begin, and where the page is."""
        self._start = os.fsencode(start)
        self._base = quote(os.fsencode(os.path.relpath(folder, start))) + "/"

    def to(self, path: str) -> str:
        """Give the link to a row's file."""
        name = _unescaped(path)
        return quote(os.path.relpath(name, self._start)) if name.startswith(b"/") else self._base + quote(name)


def _items(rows: Rows, links: _Links | None) -> Iterator[_Item]:
    """Pick the rows that a person should see."""
    for row, verdict in enumerate(rows.verdict):
        match verdict:
            case Status.REVIEW:
                part = REVIEW
            case Status.NOT_A_DIGIT | Status.BLANK:
                part = NO_DIGIT
            case Status.OK if rows.audit[row]:
                part = AUDIT
            case _:
                continue
        yield _item(rows, row, part, links)


def _likely(rows: Rows, links: _Links | None) -> Iterator[_Item]:
    """Give the rows that are sure, of no sample, and have a picture: the less sure ones do."""
    for row, verdict in enumerate(rows.verdict):
        if verdict == Status.OK and rows.thumbnail[row] and not rows.audit[row]:
            yield _item(rows, row, LIKELY, links)


def _failed(rows: Rows) -> Iterator[dict[str, Any]]:
    """Name the rows of which nothing can be shown, and say why."""
    for row, verdict in enumerate(rows.verdict):
        if verdict in _FAULTS:
            yield {"path": rows.path[row], "page": int(rows.page[row]), "detail": rows.detail[row]}


def _item(rows: Rows, row: int, part: str, links: _Links | None) -> _Item:
    digit, runner_up = int(rows.digit[row]), int(rows.runner_up[row])
    shown = {
        "path": rows.path[row],
        "page": int(rows.page[row]),
        "sha256": rows.sha256[row],
        "digit": _none_below_zero(digit),
        "confidence": _none_for_nan(float(rows.confidence[row])),
        "runner_up": _none_below_zero(runner_up),
        "runner_up_confidence": _none_for_nan(float(rows.runner_up_confidence[row])),
        "detail": rows.detail[row],
        "corrected": rows.corrected[row],
    }
    if links:
        shown["link"] = links.to(rows.path[row])
    return _Item(_PARTS.index(part), str(rows.verdict[row]), digit, shown, rows.thumbnail[row])


def _unescaped(name: str) -> bytes:
    """Give the bytes of a name that `errors.escape_name` wrote."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", os.fsencode(name))


def _page(
    items: Sequence[_Item], failed: Sequence[dict[str, Any]], about: About, statuses: Counter[str]
) -> Iterator[str]:
    """Write the page, piece by piece: the pictures come last, so that the rest is there before they are."""
    source = resources.files("batchdigits.reports.formats") / "page"
    html, style, script = ((source / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    head, to_data, to_script, end = _parted(html, "<!-- style -->", "<!-- report -->", "<!-- script -->")
    yield head.replace("STYLE-HASH", _hash(style)).replace("SCRIPT-HASH", _hash(script))
    yield f"<style>{style}</style>"
    yield to_data
    yield _data("report", {**_report(items, about, statuses), "failed": failed})
    yield to_script
    yield f"<script>{script}</script>\n"
    for start in range(0, len(items), _BLOCK):
        pictures = [b64encode(item.thumbnail).decode() for item in items[start : start + _BLOCK]]
        yield _data(f"pictures-{start // _BLOCK}", pictures)
    yield end


def _parted(html: str, *marks: str) -> Iterator[str]:
    """Cut the page's frame at the marks, each of which stands in it once and in this order."""
    for mark in marks:
        before, html = html.split(mark)
        yield before
    yield html


def _report(items: Sequence[_Item], about: About, statuses: Counter[str]) -> dict[str, Any]:
    """Gather what the page's script reads."""
    groups = [
        {"part": _PARTS[part], "status": _KINDS[kind], "digit": _none_below_zero(digit), "size": len(list(members))}
        for (part, kind, digit), members in groupby(items, lambda item: (item.part, *item.group()))
    ]
    sample = [item for item in items if _PARTS[item.part] == AUDIT]
    open_sample = sum(not item.shown["corrected"] for item in sample)
    return {
        "pages": statuses.total(),
        "statuses": {status.value: statuses[status.value] for status in Status},
        "threshold": about.threshold,
        "target_error": about.target_error,
        "trust": _trust(about, open_sample),
        "model": about.model[:12],
        "tool_version": about.tool_version,
        "block": _BLOCK,
        "groups": groups,
        "items": [item.shown for item in items],
    }


def _trust(about: About, sample: int) -> str:
    """Say what those that are ok are worth, and how many answers more a proof takes.

    Args:
        about: Of the report.
        sample: Pages of the audit sample that nobody has answered.
    """
    sentences = [f"Trust: {about.trust}."]
    missing = [(target, count) for target, count in zip(TARGETS, about.answers_missing, strict=True) if count]
    if within := [f"{count:,} for {target:.1%}" for target, count in missing if count <= sample]:
        parts = ", ".join(within)
        sentences.append(f"To prove an error on these scans takes about so many answers to the audit sample: {parts}.")
    elif missing:
        target, count = missing[0]
        sentences.append(
            f"To prove an error of {target:.1%} on these scans takes about {count:,} answers to the audit sample; that "
            f"of this folder has {sample:,}."
        )
    return " ".join(sentences)


def _data(name: str, value: object) -> str:
    """Spell data as an element that no browser runs, in ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _hash(text: str) -> str:
    """Name a text as a Content-Security-Policy does.

    Source: https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _none_below_zero(digit: int) -> int | None:
    return None if digit < 0 else digit


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value

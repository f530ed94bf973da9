"""Turn stored predictions into the rows of the report, and add them up. Nothing here is kept in the ledger."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchdigits import __version__
from batchdigits.errors import OF_THE_MACHINE, FaultKind, escaped, unforeseen
from batchdigits.inference.audit import Audit, in_sample
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import SEVERAL_DIGITS, Decisions, decide_calibrated, with_threshold
from batchdigits.inference.thresholds import Calibration
from batchdigits.inference.trust import Trust
from batchdigits.ledger.reader import Observations
from batchdigits.records import NO_DIGIT, Status
from batchdigits.reports.schema import About, Rows
from batchdigits.settings import PredictSettings

T = TypeVar("T")

log = logging.getLogger(__name__)

TO_LOOK_AT = frozenset({Status.REVIEW, Status.NOT_A_DIGIT, Status.BLANK})
"""What people should look at, beside the audit sample."""

_MOST_NAMED = 2  # rows with a fault, in the words at the end of a run
MODEL_ID_LENGTH = 12
"""Characters of the bundle's id that a row shows."""


class Decided(NamedTuple):
    """A chunk of stored predictions that was decided on."""

    seen: Observations
    """The predictions."""
    decisions: Decisions
    """On its pages without a fault."""


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """What turns stored predictions into rows: the model, the audit sample, and the threshold with its reasons."""

    model: Bundle
    """What made the logits."""
    audit: float
    """Share of files, 0 to 1, that people should check though they are `ok`."""
    trust: Trust
    """Below which confidence a digit goes to review, why that is so, and what it is worth."""


@dataclass(slots=True)
class Tally:
    """What rows add up to."""

    rows: Counter[str] = field(default_factory=Counter)
    """By status."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """By what the model says of them, answered or not."""
    left: int = 0
    """Rows that people should look at and have not answered."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """The first rows with a fault: the name, safe for a terminal, and the status."""
    digits: Counter[int] = field(default_factory=Counter)
    """Rows that name a digit, `ok` or `review`, by digit."""
    audit: Audit = field(default_factory=Audit)
    """What people found in the sample of those that are `ok`."""
    several: int = 0
    """Rows that were refused because they seem to hold several digits."""
    unforeseen: int = 0
    """Rows that met an error which nobody foresaw as they were made: faults that the ledger does not know."""

    def add(self, rows: Rows) -> None:
        """Count a chunk of rows."""
        counts = Counter(rows.status)
        self.rows.update(counts)
        self.left += sum(counts[status] for status in TO_LOOK_AT)
        if not counts.keys().isdisjoint(FaultKind) and len(self.failed) < _MOST_NAMED:
            self.failed = [*self.failed, *_failed(rows)][:_MOST_NAMED]
        self.verdicts.update(rows.verdict)
        self.digits.update(rows.digit[rows.digit >= 0].tolist())
        self.several += rows.detail.count(SEVERAL_DIGITS)
        for row in rows.audit.nonzero()[0].tolist():
            self.left += not rows.corrected[row]
            self.audit.add(rows.sha256[row], rows.page[row], int(rows.digit[row]), rows.corrected[row])

    def spelled(self) -> dict[str, Any]:
        """Spell it as what becomes JSON, but for what is counted once alone."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"audit": [self.audit.sample, self.audit.answered, self.audit.wrong]}

    @classmethod
    def parsed(cls, kept: dict[str, Any]) -> Self:
        """Read what `spelled` gives."""
        digits = Counter({int(digit): count for digit, count in kept["digits"].items()})
        return cls(
            Counter(kept["rows"]),
            Counter(kept["verdicts"]),
            kept["left"],
            [(name, status) for name, status in kept["failed"]],
            digits,
            Audit(*kept["audit"]),
            kept["several"],
        )


_KEPT = ("rows", "verdicts", "left", "failed", "digits", "several")


def _failed(rows: Rows) -> Iterator[tuple[str, str]]:
    """Name the rows that have a fault."""
    for path, page, status in zip(rows.path, rows.page, rows.status, strict=True):
        if status in list(FaultKind):
            name = escaped(path).replace("\\\\", "\\")  # reports have escaped its backslashes before
            yield name + (f", page {page}" if page > 1 else ""), str(status)


def decide_on(chunks: Iterable[Observations], calibration: Calibration, tally: Tally) -> Iterator[Decided]:
    """Decide on stored predictions, by the threshold 0.

    Args:
        chunks: Stored predictions in the order of the report.
        calibration: Of the model.
        tally: Gets the errors that nobody foresaw, to count.
    """
    for seen in chunks:
        yield from _sparing(seen, lambda one: _decided(one, calibration), tally)


def _decided(seen: Observations, calibration: Calibration) -> Decided:
    return Decided(seen, decide_calibrated(seen.logits, seen.ink, calibration, threshold=0.0))


def render(chunks: Iterable[Decided], terms: DecisionSettings, tally: Tally) -> Iterator[Rows]:
    """Turn what was decided on into the rows of the report.

    Args:
        chunks: What `decide_on` gives.
        terms: By what they are decided on.
        tally: Gets every row, to count.
    """
    calibration = terms.model.calibration
    for chunk in chunks:

        def made(one: Observations, chunk: Decided = chunk) -> Rows:
            return _rows(chunk if one is chunk.seen else _decided(one, calibration), terms)

        for rows in _sparing(chunk.seen, made, tally):
            tally.add(rows)
            yield rows


def _sparing(seen: Observations, make: Callable[[Observations], T], tally: Tally) -> list[T]:
    """Make something of a chunk; where that meets an error which nobody foresaw, the rows that it met are faults."""
    try:
        return [make(seen)]
    except OF_THE_MACHINE:
        raise
    except Exception as error:  # noqa: BLE001
        if len(seen.names) > 1:
            return [made for one in seen.apart() for made in _sparing(one, make, tally)]
        fault = unforeseen(error)
    tally.unforeseen += 1
    log.debug("%s, page %d: %s", escaped(seen.names[0]), seen.pages[0], fault.trace)
    return [make(seen.failed(fault))]


def _rows(decided: Decided, terms: DecisionSettings) -> Rows:
    seen = decided.seen
    found = with_threshold(decided.decisions, seen.ink, terms.trust.threshold)
    read = np.array([fault is None for fault in seen.faults], np.bool_)
    verdict = np.array([fault.kind.value if fault else "" for fault in seen.faults], dtype=object)
    detail = np.array([fault.detail if fault else "" for fault in seen.faults], dtype=object)
    verdict[read], detail[read] = found.status, found.detail

    def spread(column: NDArray[Any], empty: float) -> NDArray[Any]:
        """Give the pages with a fault their empty cells."""
        full = np.full((len(read), *column.shape[1:]), empty, column.dtype)
        full[read] = column
        return full

    digit = spread(found.digit, NO_DIGIT)
    final = np.where(verdict == Status.OK, digit, NO_DIGIT).astype(np.int8)
    answers = [int(answer) if answer.isdigit() else NO_DIGIT for answer in seen.corrected if answer]
    is_answered = np.array([answer != "" for answer in seen.corrected], np.bool_)
    final[is_answered] = answers
    return Rows(
        path=seen.names,
        page=seen.pages,
        status=np.where(is_answered, Status.ANSWERED, verdict).tolist(),
        digit=digit,
        confidence=spread(found.confidence, np.nan),
        runner_up=spread(found.runner_up, NO_DIGIT),
        runner_up_confidence=spread(found.runner_up_confidence, np.nan),
        corrected=seen.corrected,
        final=final,
        detail=detail.tolist(),
        width=seen.widths,
        height=seen.heights,
        sha256=seen.sha256,
        model=[name[:MODEL_ID_LENGTH] for name in seen.models],
        probabilities=spread(found.probabilities, np.nan),
        verdict=verdict.tolist(),
        thumbnail=seen.thumbnails,
        audit=(verdict == Status.OK) & in_sample(seen.sha256, terms.audit),
    )


def about_report(terms: DecisionSettings, settings: PredictSettings, *, versions: str) -> About:
    """Describe how a report was made.

    Args:
        terms: By what its rows were decided on.
        settings: Of the run.
        versions: Those of the code and of the runtime, and the limits of decoding, in one line.
    """
    return About(
        tool_version=__version__,
        model=terms.model.id,
        temperature=terms.model.calibration.temperature,
        gate=terms.model.calibration.gate,
        threshold=terms.trust.threshold,
        target_error=terms.trust.promised,
        expected_error=terms.trust.expected,
        basis=terms.trust.basis.value,
        trust=terms.trust.words(),
        answers_missing=terms.trust.missing,
        max_pixels=settings.decoding.max_pixels,
        max_bytes=settings.decoding.max_bytes,
        versions=versions,
    )

"""A report in; the images that people answered, wherever they lie now, out: what a model can learn from them."""

from dataclasses import dataclass
from pathlib import Path

from batchdigits.database import glimpse
from batchdigits.ledgers import ledger_of

_ANSWERED = """
SELECT min(files.path), answers.page, answers.sha256, answers.answer
FROM answers JOIN observations USING (sha256) JOIN files ON files.observation = observations.id
GROUP BY answers.sha256, answers.page
ORDER BY min(files.path), answers.page
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """A page that somebody answered."""

    path: str
    """The file, absolute, as it was found last."""
    page: int
    """From 1."""
    sha256: str
    """Of the bytes that the answer is about."""
    answer: str
    """`0` to `9`, or `x` for no digit."""


def has_answers(report: Path) -> bool:
    """Tell whether a file is a report whose ledger is in its folder."""
    return report.is_file() and ledger_of(report).is_file()


def answered(report: Path) -> list[Answered]:
    """Read the answers of a report's ledger, in the order of paths, without waiting for a run that may hold it.

    Of copies of an image one is given.
    """
    rows = glimpse(ledger_of(report), _ANSWERED)
    return [Answered(path.decode(errors="surrogateescape"), page, sha256, text) for path, page, sha256, text in rows]

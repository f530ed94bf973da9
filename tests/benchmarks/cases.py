"""Read the cases of `../shared/cases` that are about reading, and tell which rules of theirs hold.

Each is a folder of small inputs with `truth.csv`, whose truth is empty where a page shows no single digit, and a script
that names its rules.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.reading import SHARED, PageSet, decoded
from tests.benchmarks.scores import Score

_CASES = SHARED / "cases"
_NUMBERS = ("c20", *(f"p{n:02}" for n in (1, 3, 4, 6, 8, 9, 10, 12, 13, 15, 16, 18, 19, 20, 21, 22, 23)))
_RULES_OF_TEXT = ["noblank"]  # of c20, which has no truth.csv


def cases() -> Iterator[PageSet | str]:
    """Give the pages of each case, first those of digits."""
    found = [folder for number in _NUMBERS for folder in sorted(_CASES.glob(f"{number}-*"))]
    if not found:
        yield "../shared/cases is missing: the cases."
        return
    yield from sorted(map(_read, found), key=lambda some: some.labels is None)


def holds(score: Score) -> str:
    """Say which rules of a case hold for what was said of it."""
    return ", ".join(f"{rule} {'holds' if _keeps(rule, score) else 'FAILS'}" for rule in _rules(_CASES / score.name))


def _read(folder: Path) -> PageSet:
    """Decode the pages of one case."""
    table = folder / "truth.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            truth = {row["path"]: row["truth"] for row in csv.DictReader(file)}
    else:
        truth = {path.name: "" for path in sorted((folder / "in").iterdir())}
    pages = [decoded((folder / "in" / name).read_bytes(), name) for name in truth]
    labels = np.array([int(digit or -1) for digit in truth.values()], np.int8)
    assert (labels < 0).all() or (labels >= 0).all(), folder.name
    return PageSet(
        folder.name,
        [page.grey for page in pages],
        None if (labels < 0).all() else labels,
        [page.full_resolution for page in pages],
        list(truth),
    )


def _rules(folder: Path) -> list[str]:
    """Read the rules of a case from its script."""
    called = re.search(r"\bimages ([^\n;]+)", (folder / "check.sh").read_text(encoding="utf-8"))
    return called[1].split() if called else _RULES_OF_TEXT


def _keeps(rule: str, score: Score) -> bool:
    """Tell whether a rule holds, as the cases' own `score.py` does."""
    key, _, limit = rule.partition(":")
    wrong_ok = score.ok - score.right_ok
    kept = {
        "read": lambda: score.right_ok >= float(limit) * score.pages and not wrong_ok,
        "seen": lambda: score.said >= float(limit) * score.pages and not wrong_ok,
        "refuse": lambda: score.ok <= int(limit),
        "notwrong": lambda: wrong_ok <= int(limit),
        "noblank": lambda: not score.blank,
    }
    return kept[key]()

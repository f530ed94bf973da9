"""Read stored predictions back in the order of rows, each row checked against its sum."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from operator import itemgetter, lt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import Fault, FaultKind
from batchdigits.ledger import answers
from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import Plan
from batchdigits.ledger.schema import COVERED, are_whole
from batchdigits.records import PAGE, sums
from batchdigits.storage.scratch import in_order

CHUNK = 8192
"""Rows that are held at a time."""

_ANSWER = """
(SELECT answer FROM answers WHERE answers.sha256 = lower(hex(substr(seen, 1, 32))) AND answers.page = pages.page)
"""
_ROWS = f"SELECT {COVERED}, sum, {{answer}}, {{png}} FROM pages WHERE path BETWEEN ? AND ? ORDER BY path, page"


@dataclass(frozen=True, slots=True)
class Observations:
    """A chunk of N rows in the order of the report, one column a field."""

    names: list[str]
    """The files, as rows show them."""
    pages: list[int]
    """From 1."""
    sha256: list[str]
    """Of each file's bytes; empty where they could not be read."""
    widths: NDArray[np.int32]
    """int32[N], pixels; 0 where unknown."""
    heights: NDArray[np.int32]
    """int32[N], pixels; 0 where unknown."""
    faults: list[Fault | None]
    """None where the page was read."""
    models: list[str]
    """The id of the bundle that each row was observed with."""
    corrected: list[str]
    """A person's answer: `0` to `9`, `x` for no digit, or `c` where they cannot tell; empty where there is none."""
    thumbnails: list[bytes]
    """A PNG of the page; empty where none is kept, or none was asked for."""
    logits: NDArray[np.float32]
    """float32[P, OUTPUTS], of the P pages without a fault, in order."""
    ink: NDArray[np.float32]
    """float32[P, M], of the P pages without a fault, in order."""

    def apart(self) -> Iterator["Observations"]:
        """Give each row by itself."""
        read = 0
        for row, fault in enumerate(self.faults):
            first, read = read, read + (fault is None)
            own = {"logits": slice(first, read), "ink": slice(first, read)}
            cells = {f.name: getattr(self, f.name)[own.get(f.name, slice(row, row + 1))] for f in fields(self)}
            yield Observations(**cells)

    def failed(self, fault: Fault) -> "Observations":
        """Make a row by itself a fault."""
        empty: dict[str, Any] = {"logits": self.logits[:0], "ink": self.ink[:0], "thumbnails": [b""], "corrected": [""]}
        return replace(self, faults=[fault], widths=self.widths * 0, heights=self.heights * 0, **empty)


def read(plan: Plan, conditions: dict[int, str], chunk: int = CHUNK, *, thumbnails: bool) -> Iterator[Observations]:
    """Give all that was observed of what a plan found, in the order of rows.

    Args:
        plan: Says what was found.
        conditions: The bundle's id of each condition.
        chunk: Rows at a time.
        thumbnails: Give the pictures, too.

    Raises:
        StorageError: The ledger is damaged.
    """
    database = plan.database
    has_answers = answers.check(database)
    select = _ROWS.format(answer=_ANSWER if has_answers else "NULL", png="png" if thumbnails else "NULL")
    rows = chain.from_iterable(_named(plan, select))
    with database.errors():
        while some := _checked(database, rows, chunk, thumbnails=thumbnails):
            yield _observations(*some, conditions)


def _checked(
    database: Database, rows: Iterator[tuple[str, tuple[Any, ...]]], chunk: int, *, thumbnails: bool
) -> tuple[list[str], list[tuple[Any, ...]]] | None:
    """Take rows, make columns of them, and check their sums; None where there are no more.

    Raises:
        StorageError: One is damaged.
    """
    try:
        some = list(islice(rows, chunk))
        if not some:
            return None
        names, found = zip(*some, strict=True)
        columns = list(zip(*found, strict=True))
        *covered, of_rows, _, pngs = columns
        if not are_whole(covered, of_rows, pngs if thumbnails else None):
            raise database.damaged()
    except TypeError as error:
        raise database.damaged() from error
    return list(names), columns


def _named(plan: Plan, select: str) -> Iterator[Iterator[tuple[str, tuple[Any, ...]]]]:
    """Give the rows of what was found, in their order, each with its name."""
    if plan.is_by_name:
        for files in plan.blocks():
            yield from _of_files(plan, select, files)
    else:
        for file in in_order(plan.found, itemgetter(1)):
            yield from _of_files(plan, select, [file])


def _of_files(
    plan: Plan, select: str, files: list[tuple[bytes, str]]
) -> Iterator[Iterator[tuple[str, tuple[Any, ...]]]]:
    """Give the rows of files, which are in the order of paths.

    Raises:
        StorageError: Some are missing, or out of order.
    """
    names, there, whole = dict(files), Counter[bytes](), dict[bytes, int]()
    last = (b"", 0)
    cursor = plan.database.execute(select, (files[0][0], files[-1][0]))
    while rows := cursor.fetchmany(CHUNK):
        rows = [row for row in rows if row[0] in names]
        paths = [row[0] for row in rows]
        places = [last, *[row[:2] for row in rows]]
        if not all(map(lt, places, places[1:])):
            raise plan.database.damaged()
        last = places[-1]
        there.update(paths)
        whole.update(zip(paths, [row[2] for row in rows], strict=True))
        yield zip(map(names.__getitem__, paths), rows, strict=True)
    if there != whole or not names.keys() - there.keys() <= plan.left:
        raise plan.database.damaged()


def _observations(names: list[str], columns: list[tuple[Any, ...]], conditions: dict[int, str]) -> Observations:
    """Make a chunk of the columns of its rows."""
    _, numbers, *_, read_under, seen, kinds, details, _, _, corrected, pngs = columns
    table = np.frombuffer(b"".join(seen), PAGE)
    is_read = ~table["fault"]
    return Observations(
        names=names,
        pages=list(numbers),
        sha256=sums(table),
        widths=table["width"].copy(),
        heights=table["height"].copy(),
        faults=[
            None if kind is None else Fault(FaultKind(kind), text) for kind, text in zip(kinds, details, strict=True)
        ],
        models=[conditions[number] for number in read_under],
        corrected=[answer or "" for answer in corrected],
        thumbnails=[png or b"" for png in pngs],
        logits=table["logits"][is_read],
        ink=table["ink"][is_read],
    )

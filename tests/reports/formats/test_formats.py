"""What reports of every format promise: the same rows, whatever they hold, and the same bytes, however they come."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape
from pyarrow import parquet

from batchdigits.errors import StorageError
from batchdigits.records import Status
from batchdigits.reports.formats.csv import unguard
from batchdigits.reports.publish import ENDINGS, parse_outputs, publish
from batchdigits.reports.schema import COLUMNS, Rows
from batchdigits.settings import CsvDialect, ReportSettings
from tests.reports.formats.test_html import Page
from tests.reports.report_rows import (
    ABOUT,
    a_thousand_names,
    doubtful,
    hostile_names,
    hostile_texts,
    joined,
    seven,
    sevens,
    unreadable,
    untame,
)

Row = dict[str, Any]
"""What a report says of one page: texts, numbers, None where it says nothing."""

NAMES = [column.name for column in COLUMNS if column.name != "probabilities"]
WHOLE, SHARES = {"page", "digit", "runner_up", "final", "width", "height"}, {"confidence", "runner_up_confidence"}
NOT_ON_PAGES = {"final", "width", "height", "model"}


@dataclass(frozen=True, slots=True)
class Format:
    """A format, and how its reports are read back."""

    ending: str
    """A key of `ENDINGS`."""
    read: Callable[[bytes], list[Row]]
    """Gives the rows."""
    settings: ReportSettings = ReportSettings()
    """What a report is written with."""
    is_table: bool = True
    """Whether it holds every row in its place; the review page has those that people should see, by digit."""

    def written(self, *chunks: Rows) -> bytes:
        handle = io.BytesIO()
        with ENDINGS[self.ending](handle, ABOUT, self.settings) as report:
            for rows in chunks:
                report.write(rows)
        return handle.getvalue()

    def rows(self, *chunks: Rows) -> list[Row]:
        return self.read(self.written(*chunks))


def of_csv(data: bytes, dialect: CsvDialect) -> list[Row]:
    delimiter, point = (";", ",") if dialect is CsvDialect.EXCEL_EU else (",", ".")
    text = data.decode("utf-8" if dialect is CsvDialect.RFC4180 else "utf-8-sig")

    def value(name: str, cell: str) -> object:
        if not cell:
            return None
        if name in WHOLE:
            return int(cell)
        if name in SHARES:
            return float(cell.replace(point, "."))
        return unguard(cell) if name == "path" else untame(unguard(cell))

    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    assert reader.fieldnames == NAMES
    return [{name: value(name, cell) for name, cell in row.items()} for row in reader]


def of_parquet(data: bytes) -> list[Row]:
    table = parquet.read_table(io.BytesIO(data))
    assert table.schema.names == [*NAMES, "probabilities"]
    rows: list[Row] = table.drop_columns("probabilities").to_pylist()
    return rows


def of_workbook(data: bytes) -> list[Row]:
    book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    sheets = [sheet for sheet in book if sheet.title.startswith("Results")]
    found = [list(sheet.iter_rows(values_only=True)) for sheet in sheets]
    assert {header for header, *_ in found} == {(*NAMES, "known")}
    cells = [row for _, *rows in found for row in rows]
    texts = [[unescape(cell) if isinstance(cell, str) else cell for cell in row] for row in cells]
    return [dict(zip(NAMES, row, strict=False)) for row in texts]


def of_page(data: bytes) -> list[Row]:
    report = Page(data).report
    statuses = [group["status"] for group in report["groups"] for _ in range(group["size"])]
    return [
        {name: None if value == "" else value for name, value in item.items()} | {"status": status}
        for item, status in zip(report["items"], statuses, strict=True)
    ]


FORMATS = {
    **{
        dialect.value: Format(
            ".csv", lambda data, dialect=dialect: of_csv(data, dialect), ReportSettings(csv_dialect=dialect)
        )
        for dialect in CsvDialect
    },
    "parquet": Format(".parquet", of_parquet),
    "xlsx": Format(".xlsx", of_workbook),
    "html": Format(".html", of_page, is_table=False),
}
every_format = pytest.mark.parametrize("of", FORMATS.values(), ids=FORMATS)
TABLES = {name: of for name, of in FORMATS.items() if of.is_table}
every_table = pytest.mark.parametrize("of", TABLES.values(), ids=TABLES)


def test_every_format_is_tested_here() -> None:
    assert {of.ending for of in FORMATS.values()} == set(ENDINGS)


# ---- rows ----------------------------------------------------------------------------------------------------------


@every_format
def test_every_cell_comes_back_and_an_empty_one_is_empty(of: Format) -> None:
    answered = doubtful("a.tif", page=[3], corrected=["4"], final=np.array([4], np.int8))
    nothing = replace(unreadable("b.png"), status=["blank"], verdict=["blank"])
    full, empty = of.rows(answered, nothing)
    told: Row = {
        **{"path": "a.tif", "page": 3, "status": "review", "digit": 7, "confidence": 0.9731, "runner_up": 1},
        **{"runner_up_confidence": 0.0269, "corrected": "4", "final": 4, "detail": "could be 1 or 7"},
        **{"width": 28, "height": 30, "sha256": "ab" * 32, "model": "0123456789ab"},
    }
    assert full == {name: value for name, value in told.items() if of.is_table or name not in NOT_ON_PAGES}
    assert {name: value for name, value in empty.items() if value is not None} == {
        **{"path": "b.png", "page": 1, "status": "blank"}
    }


@every_format
def test_digit_zero_is_a_digit_and_no_empty_cell(of: Format) -> None:
    zero = np.array([0], np.int8)
    changes = {"digit": zero, "runner_up": zero, "corrected": ["0"], "final": zero, "confidence": np.array([0.0])}
    [row] = of.rows(doubtful("0.png", **changes))
    assert (row["digit"], row["runner_up"], row["corrected"], row["confidence"]) == (0, 0, "0", 0.0)
    assert row.get("final", 0) == 0


@every_table
def test_rows_stand_in_the_order_in_which_they_come_and_have_every_status(of: Format) -> None:
    rows = [seven(f"{number}.png", status=[status]) for number, status in enumerate(reversed(Status))]
    assert [(row["path"], row["status"]) for row in of.rows(*rows)] == [
        (f"{number}.png", status) for number, status in enumerate(reversed(Status))
    ]


@every_format
@given(
    paths=st.lists(hostile_names, min_size=1, max_size=24),
    detail=hostile_texts.filter(bool),
)
@settings(max_examples=20, deadline=None)
def test_every_name_and_detail_comes_back_exactly(of: Format, paths: list[str], detail: str) -> None:
    found = of.rows(*(doubtful(path, detail=[detail]) for path in paths))
    assert [row["path"] for row in found] == (paths if of.is_table else sorted(paths))
    assert {row["detail"] for row in found} == {detail}


@every_format
def test_a_thousand_hostile_names_come_back_exactly_from_a_published_report(of: Format, tmp_path: Path) -> None:
    names = a_thousand_names()
    assert len(set(names)) > 990
    report = tmp_path / f"report{of.ending}"
    rows = replace(sevens(names), status=["review"] * len(names), verdict=["review"] * len(names))
    publish([rows], parse_outputs([str(report)]), about=ABOUT, settings=of.settings, stdout=io.BytesIO())
    found = [row["path"] for row in of.read(report.read_bytes())]
    assert found == (names if of.is_table else sorted(names))


@every_format
def test_a_report_without_rows_has_its_columns_and_no_row(of: Format, tmp_path: Path) -> None:
    report = tmp_path / f"report{of.ending}"
    publish([], parse_outputs([str(report)]), about=ABOUT, settings=of.settings, stdout=io.BytesIO())
    assert of.read(report.read_bytes()) == []


# ---- the file ------------------------------------------------------------------------------------------------------


@every_format
def test_the_bytes_depend_neither_on_the_clock_nor_on_the_chunks(of: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchdigits.reports.formats.parquet._ROW_GROUP", 4)
    monkeypatch.setattr("batchdigits.reports.formats.worksheet._MOST_ROWS", 4)
    _, thumbnail = cv2.imencode(".png", np.full((9, 9), 90, np.uint8))
    kinds = [
        *(seven(), doubtful(thumbnail=[thumbnail.tobytes()]), doubtful(digit=np.array([3], np.int8)), unreadable()),
        *(replace(unreadable(), status=["blank"], sha256=["cd" * 32]), seven(audit=np.array([True]))),
    ]
    rows = [replace(row, path=[f"{number % 7}.png"], page=[number]) for number, row in enumerate(kinds * 3)]
    whole = of.written(joined(*rows))
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert of.written(*rows) == whole
    assert of.written(joined(*rows[:5]), sevens([]), joined(*rows[5:])) == whole


class Forgetful(io.BytesIO):
    """A disk that gives back other bytes than it was given."""

    change: Callable[[bytes], bytes]
    name: str

    def flush(self) -> None:
        data = self.getvalue()
        self.seek(0)
        self.truncate()
        super().write(self.change(data))


@pytest.mark.parametrize(
    ("ending", "change", "reason"),
    [
        (".parquet", lambda _: b"PAR1 and then nothing", "cannot be read back"),
        (".parquet", lambda _: FORMATS["parquet"].written(seven()), "holds 1 rows of 2"),
        (".xlsx", lambda _: b"PK and then nothing", "cannot be read back"),
        (".xlsx", lambda data: data[:-40], "cannot be read back"),
        (".xlsx", lambda data: data[:90] + b"damage" + data[96:], "cannot be read back"),
    ],
    ids=["nothing", "other rows", "no workbook", "cut", "changed"],
)
def test_a_binary_file_that_does_not_read_back_is_refused(
    ending: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    handle = Forgetful()
    handle.change, handle.name = change, f"r{ending}"
    with (
        pytest.raises(StorageError, match=rf"^r\{ending} {reason}"),
        ENDINGS[ending](handle, ABOUT, ReportSettings()) as report,
    ):
        report.write(sevens(["a", "b"]))

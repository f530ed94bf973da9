"""Tables that people send back, and names that people give files: none expands, counts on for ever, or reckons."""

import csv
import io
import os
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest

from batchdigits.errors import StorageError, UsageError
from batchdigits.reports.corrections import correct
from batchdigits.reports.formats import xlsx
from batchdigits.reports.formats.csv import CsvReport
from batchdigits.reports.formats.xlsx import text_rows
from batchdigits.settings import CsvDialect, ReportSettings
from batchdigits.storage.local import LocalFile
from tests.ledger.test_ledger import ledger_at
from tests.reports.report_rows import ABOUT, seven

COLUMNS = ("path", "page", "sha256", "corrected")


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(COLUMNS)
    sheet.append(("a.png", 1, "ab" * 32, 5))
    book.save(tmp_path / "answers.xlsx")
    return tmp_path / "answers.xlsx"


def changed(workbook: Path, part: str, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(workbook) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert parts[part].count(old) == 1
    parts[part] = parts[part].replace(old, new)
    with zipfile.ZipFile(workbook, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


SHEET = "xl/worksheets/sheet1.xml"
LAUGHS = b'<!DOCTYPE w [<!ENTITY a "haha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + depth, b"&%c;" % (97 + depth) * 50) for depth in range(8)
)


def test_a_workbook_is_read(workbook: Path) -> None:
    assert [cells for _, _, cells, _ in text_rows(workbook, COLUMNS)] == [("a.png", "1", "ab" * 32, "5")]


@pytest.mark.parametrize("part", [SHEET, "xl/workbook.xml", "[Content_Types].xml", "docProps/core.xml"])
def test_no_entity_of_a_workbook_expands(workbook: Path, part: str) -> None:
    with zipfile.ZipFile(workbook) as archive:
        data = archive.read(part)
    root = data[data.index(b"<", 5 if data.startswith(b"<?xml") else 0) :][:12]
    changed(workbook, part, root, LAUGHS + b"]><!-- -->" + root)
    with pytest.raises(UsageError, match="it declares entities"):
        list(text_rows(workbook, COLUMNS))


def test_a_workbook_that_counts_to_a_billion_rows_is_refused(workbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "_MOST_ROWS", 1000)  # openpyxl makes a row of each that was left out
    changed(workbook, SHEET, b'<row r="2"', b'<row r="1000000000"')
    with pytest.raises(UsageError, match="counts to more rows than a sheet has"):
        list(text_rows(workbook, COLUMNS))


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_a_pipe_of_answers_is_not_waited_for(tmp_path: Path, ending: str) -> None:
    with ledger_at(tmp_path / "r.csv.ledger") as ledger:
        ledger.publish(LocalFile(tmp_path / "r.csv"), "ab" * 32, (), replaced="")
    answers = tmp_path / f"answers.{ending}"
    os.mkfifo(answers)
    with pytest.raises(StorageError, match="is a pipe"):
        correct(LocalFile(tmp_path / "r.csv"), answers, ledger=None, time=datetime.now(UTC))


@pytest.mark.parametrize("dialect", CsvDialect)
@pytest.mark.parametrize("other", ",;")
@pytest.mark.parametrize("name", ["a;=1+1.png", "a,=1+1.png", 'a";=1+1.png', "=1;=1+1.png", 'a;"=1&"', "a\n=1+1.png"])
def test_no_cell_is_a_formula_behind_another_separator(dialect: CsvDialect, other: str, name: str) -> None:
    written = io.BytesIO()
    with CsvReport(written, ABOUT, ReportSettings(csv_dialect=dialect)) as report:
        report.write(replace(seven(), path=[name], detail=[f"of {name}"]))
    text = written.getvalue().decode("utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=other) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []

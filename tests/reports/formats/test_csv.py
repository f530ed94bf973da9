import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.reports.formats.csv import CsvReport, guard, tame, unguard
from batchdigits.reports.schema import Rows
from batchdigits.settings import CsvDialect, ReportSettings
from tests.reports.report_rows import ABOUT, hostile_names, hostile_texts, seven, unreadable, untame

HEADER = (
    "path,page,final,status,digit,confidence,corrected,detail,runner_up,runner_up_confidence,width,height,sha256,model"
)


def written(*chunks: Rows, settings: ReportSettings | None = None) -> bytes:
    handle = io.BytesIO()
    with CsvReport(handle, ABOUT, settings or ReportSettings()) as report:
        for rows in chunks:
            report.write(rows)
    return handle.getvalue()


def cells(data: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True))


def test_a_report_is_one_header_and_a_line_a_row_with_crlf() -> None:
    data = written(seven(), unreadable())
    assert data.decode() == (
        f"{HEADER}\r\n"
        f"7.png,1,,ok,7,0.9731,,,1,0.0269,28,30,{'ab' * 32},0123456789ab\r\n"
        "broken.png,1,,unreadable,,,,,,,,,,\r\n"
    )


def test_confidences_have_exactly_four_decimals() -> None:
    rows = seven(confidence=np.array([1.0]), runner_up_confidence=np.array([0.0]))
    assert b",7,1.0000,,,1,0.0000," in written(rows)


def test_probabilities_are_ten_columns_at_the_end_if_asked_for() -> None:
    header, row, empty = cells(written(seven(), unreadable(), settings=ReportSettings(probabilities=True)))
    assert header == HEADER.split(",") + [f"p{digit}" for digit in range(10)]
    assert row[14:] == ["0.0000", "0.0269"] + ["0.0000"] * 5 + ["0.9731"] + ["0.0000"] * 2
    assert empty[14:] == [""] * 10


def test_the_dialect_excel_differs_by_a_byte_order_mark_alone() -> None:
    rows = seven("é.png")
    assert written(rows, settings=ReportSettings(csv_dialect=CsvDialect.EXCEL)) == b"\xef\xbb\xbf" + written(rows)


def test_the_dialect_excel_eu_has_the_mark_semicolons_and_decimal_commas() -> None:
    data = written(seven("a;b,c.png"), settings=ReportSettings(csv_dialect=CsvDialect.EXCEL_EU, probabilities=True))
    assert data.startswith(b"\xef\xbb\xbfpath;page;")
    _, row = cells(data.removeprefix(b"\xef\xbb\xbf"), ";")
    assert row[:6] == ["a;b,c.png", "1", "", "ok", "7", "0,9731"]
    assert row[14:16] == ["0,0000", "0,0269"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "'", "\t", "\r"])
@pytest.mark.parametrize("column", ["path", "status", "corrected", "detail", "sha256", "model"])
def test_a_text_cell_that_a_spreadsheet_would_run_gets_one_apostrophe(start: str, column: str) -> None:
    header, row = cells(written(seven(**{column: [f"{start}1+1"]})))
    assert row[header.index(column)] == f"'{start}1+1"


def test_other_cells_get_no_apostrophe() -> None:
    assert guard("a=b") == "a=b"
    assert guard("") == ""


@given(hostile_texts | hostile_names)
def test_a_guarded_text_starts_no_formula_and_is_read_back_exactly(text: str) -> None:
    assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unguard(guard(text)) == text


@given(st.text("=-,;\t\n'\"a"))
def test_a_tamed_text_is_read_back_exactly(text: str) -> None:
    assert untame(unguard(guard(tame(text)))) == text


def test_importing_the_reports_loads_neither_pandas_nor_pyarrow() -> None:
    code = "import sys, batchdigits.reports.publish; sys.exit(bool({'pandas', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

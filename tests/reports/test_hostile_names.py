"""A thousand hostile names through every report and back."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest
from openpyxl.utils.escape import unescape

from batchdigits.reports import publish
from batchdigits.reports.formats.csv import unguard
from batchdigits.settings import CsvDialect, ReportSettings
from tests.reports.examples import ABOUT, a_thousand_names, sevens
from tests.reports.formats.test_html import Page


@pytest.mark.parametrize("dialect", CsvDialect)
def test_a_thousand_hostile_names_come_back_exactly_from_every_report(tmp_path: Path, dialect: CsvDialect) -> None:
    assert set(publish.ENDINGS) == {".csv", ".parquet", ".xlsx", ".html"}
    names = a_thousand_names()
    assert len(set(names)) > 990
    outputs = [str(tmp_path / f"report{ending}") for ending in publish.ENDINGS]
    rows = replace(sevens(names), status=["review"] * len(names))
    settings = ReportSettings(csv_dialect=dialect)
    publish.publish([rows], publish.parse_outputs(outputs), about=ABOUT, settings=settings, stdout=io.BytesIO())

    with (tmp_path / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = csv.DictReader(file, delimiter=";" if dialect is CsvDialect.EXCEL_EU else ",")
        found = [unguard(row["path"]) for row in cells]
    assert found == names
    assert pq.read_table(tmp_path / "report.parquet")["path"].to_pylist() == names
    book = openpyxl.load_workbook(tmp_path / "report.xlsx")
    assert [unescape(path) for (path,) in book["Results"].iter_rows(min_row=2, max_col=1, values_only=True)] == names
    page = Page((tmp_path / "report.html").read_bytes())
    assert sorted(item["path"] for item in page.report["items"]) == sorted(names)
    assert {tag for tag, _ in page.tags} & {"img", "r", "a"} == set()

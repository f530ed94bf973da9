"""Corrections: what people answered goes into the ledger whole, or not at all and every wrong line is named."""

import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.errors import Fault, FaultKind, Locked, StorageError, UsageError
from batchdigits.ledger import answers
from batchdigits.ledger.database import Database
from batchdigits.ledger.location import beside, held
from batchdigits.ledger.schema import checksum
from batchdigits.reports.backup import Replacing, published_reports
from batchdigits.reports.corrections import correct
from batchdigits.reports.formats.csv import guard
from batchdigits.reports.formats.xlsx import XlsxReport
from batchdigits.settings import ReportSettings
from batchdigits.storage.atomic import atomic_write_all
from batchdigits.storage.local import LocalFile
from batchdigits.storage.urls import locate
from tests.cli_runner import CHECKOUT, Result, batchdigits, run
from tests.file_states import names, written
from tests.ledger.test_ledger import batch_of, image, ledger_at, record, seen
from tests.reports.report_rows import ABOUT, hostile_names, seven
from tests.sample_pages import one_of_each, write_png

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
FILES = [image(f"{number}.tif", ending=".tif") for number in range(60)]
PAGES = [(seen(file).sha256, number) for file in FILES for number in (1, 2)]
CLOSED = image("closed.png")
COLUMNS = ("path", "page", "sha256", "corrected")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 60 files of two pages, and of one that could not be opened; no test writes into it."""
    path = tmp_path_factory.mktemp("known") / "report.csv.ledger"
    with ledger_at(path) as ledger:
        ledger.plan([*FILES, CLOSED])
        closed = (seen(CLOSED, sha256=""), Fault(FaultKind.UNREADABLE, "closed"))
        record(ledger, batch_of([seen(file, number) for file in FILES for number in (1, 2)], [closed]))
    return path


ROOT = "/scans"


@pytest.fixture
def known_paths(tmp_path: Path) -> Path:
    """A report whose ledger knows files by different paths; `twin.png` stands in two folders with the same bytes."""
    path = tmp_path / "paths.csv"
    places = {"a/1.png": "1", "b/1.png": "4", "2.png": "2", "b/3.png": "3", "a/twin.png": "5", "b/twin.png": "5"}
    files = {image(name, path=f"{ROOT}/{name}"): digit * 64 for name, digit in places.items()}
    pages = image("pages.tif", path=f"{ROOT}/pages.tif", ending=".tif")
    closed = image("closed.png", path=f"{ROOT}/closed.png")
    with ledger_at(Path(f"{path}.ledger")) as ledger:
        ledger.plan([*files, pages, closed])
        found = [seen(file, sha256=sha256) for file, sha256 in files.items()]
        found += [seen(pages, number) for number in (1, 2)]
        record(ledger, batch_of(found, [(seen(closed, sha256=""), Fault(FaultKind.UNREADABLE, "closed"))]))
    return path


@pytest.fixture
def report(known: Path, tmp_path: Path) -> Path:
    """The name of a report; beside it is its ledger."""
    shutil.copy(known, tmp_path)
    return tmp_path / "report.csv"


def table(*rows: tuple[object, ...], header: tuple[str, ...] = COLUMNS, delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue()


def row(page: int, answer: str, path: str = "a.tif") -> tuple[object, ...]:
    """A row about one of `PAGES`."""
    sha256, number = PAGES[page]
    return path, number, sha256, answer


def corrected(report: Path, text: str | bytes, *, name: str = "answers.csv") -> str:
    corrections = report.with_name(name)
    corrections.write_bytes(text.encode() if isinstance(text, str) else text)
    return correct(LocalFile(report), corrections, ledger=None, time=NOW)


def refused(report: Path, text: str | bytes) -> list[str]:
    """The lines of the message, when nothing is taken in."""
    before = kept(report)
    with pytest.raises(UsageError) as error:
        corrected(report, text)
    assert kept(report) == before
    return str(error.value).split("\n  ")


def kept(report: Path) -> dict[tuple[str, int], str]:
    """What the ledger beside a report holds."""
    with Database(Path(f"{report}.ledger")) as database:
        rows = database.execute("SELECT sha256, page, answer FROM answers").fetchall()
    return {(sha256, page): answer for sha256, page, answer in rows}


# ---- what is taken in ----------------------------------------------------------------------------------------------


def test_answers_are_counted_dated_and_named_by_their_source(report: Path) -> None:
    assert corrected(report, table(row(0, "7"), row(1, "x"))) == (
        f"2 answers taken into {report}.ledger (2 new, 0 changed)"
    )
    said = corrected(report, table(row(0, "7"), row(1, "3"), row(2, "0")), name="later\x1b.csv")
    assert "3 answers taken into" in said
    assert "(1 new, 1 changed)" in said
    with Database(Path(f"{report}.ledger")) as database:
        found = database.execute("SELECT answer, time, source FROM answers ORDER BY answer").fetchall()
    folder, time = report.parent, "2026-03-01T12:30:00+00:00"
    later = rf"{folder}/later\x1b.csv"
    assert found == [("0", time, later), ("3", time, later), ("7", time, f"{folder}/answers.csv")]


def test_the_same_answers_again_write_nothing(report: Path) -> None:
    text = table(row(0, "7"), row(1, "x"))
    corrected(report, text)
    before = written(Path(f"{report}.ledger"))
    assert "2 answers" in (said := corrected(report, text))
    assert "(0 new, 0 changed)" in said
    assert written(Path(f"{report}.ledger")) == before


def test_an_answer_that_takes_the_place_of_another_is_named(report: Path, caplog: pytest.LogCaptureFixture) -> None:
    corrected(report, table(row(0, "7"), row(1, "3")))
    assert caplog.messages == []
    corrected(report, table(row(0, "7"), row(1, "x", path=r"b\x0a.tif")))
    assert caplog.messages == [r"line 3, b\x0a.tif, page 2: the answer 3 becomes x."]


def test_one_answer_is_one_and_none_is_none(report: Path) -> None:
    assert corrected(report, table(row(0, "7"), row(1, ""), row(2, "  "))).startswith("1 answer taken into")
    assert corrected(report, table(row(0, ""))) == f"0 answers taken into {report}.ledger (0 new, 0 changed)"
    assert corrected(report, table()).startswith("0 answers")
    assert kept(report) == {PAGES[0]: "7"}


def test_an_answer_is_taken_back_by_the_word_for_that(report: Path, caplog: pytest.LogCaptureFixture) -> None:
    corrected(report, table(row(0, "7"), row(1, "3")))
    said = corrected(report, table(row(0, "withdraw"), row(1, "3"), row(2, " Withdraw ")))
    assert said == f"1 answer taken into {report}.ledger (0 new, 0 changed, 1 withdrawn)"
    assert caplog.messages == ["line 2, a.tif, page 1: the answer 7 is withdrawn."]
    assert kept(report) == {PAGES[1]: "3"}
    with Database(Path(f"{report}.ledger")) as database:
        answers.check(database)  # their number is right


def short(*rows: tuple[str, ...], header: tuple[str, ...] = ("path", "corrected")) -> str:
    """A table whose lines name their image by its path alone."""
    return table(*rows, header=header)


def test_a_path_is_enough_where_it_tells_the_page(known_paths: Path) -> None:
    lines = [("a/1.png", "7"), ("./2.png", "3"), (f"{ROOT}/b/3.png", "x"), ("twin.png", "5"), ("a/1.png", "7")]
    assert "4 answers taken into" in corrected(known_paths, short(*lines))
    assert {sha256[0]: answer for (sha256, _), answer in kept(known_paths).items()} == {
        **{"1": "7", "2": "3", "3": "x", "5": "5"}
    }
    with_page = short(("pages.tif", "2", "9"), header=("path", "page", "corrected"))
    assert "1 answer taken into" in corrected(known_paths, with_page)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("1.png", "the path may mean /scans/a/1.png or /scans/b/1.png; write more of its folders"),
        ("pages.tif", "the file has 2 pages; add the column page"),
        ("nowhere.png", "the ledger knows no file of this path"),
        ("ng", "the ledger knows no file of this path"),
        ("closed.png", "without a sha256 nobody knows what it is about"),
    ],
)
def test_a_path_that_does_not_tell_the_page_is_named_and_nothing_is_taken_in(
    path: str, words: str, known_paths: Path
) -> None:
    _, line = refused(known_paths, short(("2.png", "4"), (path, "3")))
    assert line.startswith(f"line 3, {path}")
    assert words in line


def test_of_several_files_that_fit_the_one_right_below_a_source_is_meant(known_paths: Path) -> None:
    with Database(Path(f"{known_paths}.ledger")) as database:
        row = (b"/r.csv", "0", json.dumps([f"{ROOT}/a"]))
        database.execute("INSERT INTO reports VALUES (?, ?, ?, ?)", (*row, checksum(*row)))
    corrected(known_paths, short(("1.png", "7")))
    assert {sha256[0] for sha256, _ in kept(known_paths)} == {"1"}


def test_an_empty_cell_takes_no_answer_back(report: Path) -> None:
    corrected(report, table(row(0, "7")))
    corrected(report, table(row(0, "")))
    assert kept(report) == {PAGES[0]: "7"}


def test_the_same_bytes_under_two_names_have_one_answer(report: Path) -> None:
    corrected(report, table(row(0, "x", "a.tif"), row(0, " X ", "copy.tif"), row(0, "", "another.tif")))
    assert kept(report) == {PAGES[0]: "x"}


def test_an_answer_that_is_known_may_be_about_bytes_that_are_gone(report: Path) -> None:
    """As in a report that somebody edited while a file, which had an answer, was replaced."""
    corrected(report, table(row(0, "7")))
    changed = image("0.tif", ending=".tif", size_bytes=6)
    with ledger_at(Path(f"{report}.ledger")) as ledger:
        ledger.plan([changed])
        record(ledger, batch_of([seen(changed)]))
    assert "(1 new, 1 changed)" in corrected(report, table(row(0, "8"), row(2, "1")))
    [_, problem] = refused(report, table(row(1, "7")))
    assert "does not know these bytes" in problem


spelled = st.builds(
    lambda before, answer, after: f"{before}{answer}{after}",
    st.sampled_from(["", " ", "\t", "\xa0"]),
    st.sampled_from([*"0123456789xXcC"]),
    st.sampled_from(["", " ", "  "]),
)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.dictionaries(st.sampled_from(PAGES), spelled, max_size=12),
    unanswered=st.lists(st.sampled_from(PAGES), max_size=5),
    paths=st.lists(hostile_names, min_size=1, max_size=5),
    header=st.permutations([*COLUMNS, "detail", "p0", ""]),
    delimiter=st.sampled_from([",", ";"]),
    mark=st.sampled_from(["", "\ufeff"]),
    line_end=st.sampled_from(["\r\n", "\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_answers_that_csv_writes_are_what_the_ledger_holds(
    known: Path,
    tmp_path_factory: pytest.TempPathFactory,
    answers: dict[tuple[str, int], str],
    unanswered: list[tuple[str, int]],
    paths: list[str],
    header: list[str],
    delimiter: str,
    mark: str,
    line_end: str,
    quoting: int,
) -> None:
    report = tmp_path_factory.mktemp("any") / "report.csv"
    shutil.copy(known, f"{report}.ledger")
    rows = [{"sha256": sha256, "page": page, "corrected": answer} for (sha256, page), answer in answers.items()]
    rows += [{"sha256": sha256, "page": page, "corrected": ""} for sha256, page in unanswered]
    for number, cells in enumerate(rows):
        cells |= {"path": guard(paths[number % len(paths)]), "detail": "a; b, c\n«d»", "p0": "0,5", "": '"'}
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([header, *([cells[name] for name in header] for cells in rows)])
    corrected(report, (mark + text.getvalue()).encode())
    assert kept(report) == {key: answer.strip().lower() for key, answer in answers.items()}


def test_bytes_that_are_not_utf_8_do_no_harm_where_they_do_not_matter(report: Path) -> None:
    corrected(report, table(row(0, "7", "é.tif"), row(1, "x", "ü.tif"), delimiter=";").encode("cp1252"))
    assert kept(report) == {PAGES[0]: "7", PAGES[1]: "x"}


def test_empty_cells_and_lines_that_a_spreadsheet_leaves_out_are_empty(report: Path) -> None:
    sha256 = PAGES[0][0]
    corrected(report, f"path,page,sha256,corrected\n\na.tif,1\na.tif,1,{sha256}\na.tif,1,{sha256},7\n\n")
    assert kept(report) == {PAGES[0]: "7"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_excel_saves_as_unicode_text_is_a_table(report: Path, encoding: str) -> None:
    corrected(report, table(row(0, "7", "é.tif"), row(1, "x"), delimiter="\t").encode(encoding))
    assert kept(report) == {PAGES[0]: "7", PAGES[1]: "x"}


def test_whole_numbers_may_be_spelled_as_pandas_does(report: Path) -> None:
    path, number, sha256, _ = row(1, "")
    corrected(report, table(row(0, "5.0"), (path, f"{number}.0", sha256, "3,0"), row(2, "0.00")))
    assert kept(report) == {PAGES[0]: "5", PAGES[1]: "3", PAGES[2]: "0"}
    [_, first, second] = refused(report, table(row(3, "5.5"), row(4, "5.")))
    assert "«5.5» is no answer" in first
    assert "«5.» is no answer" in second


@pytest.mark.parametrize(
    ("status", "digit", "final"),
    [("ok", "3", "5"), ("review", "5", "5"), ("not_a_digit", "", "x"), ("answered", "3", "5")],
)
def test_an_answer_in_the_column_final_is_not_passed_over(report: Path, status: str, digit: str, final: str) -> None:
    header = ("status", "digit", "final", *COLUMNS)
    line = refused(report, table((status, digit, final, *row(0, "")), header=header))[-1]
    assert "line 2, a.tif, page 1" in line
    assert f"final is «{final}», and corrected is empty" in line
    assert kept(report) == {}


@pytest.mark.parametrize(("status", "digit", "final"), [("ok", "3", "3.0"), ("review", "5", ""), ("blank", "", "")])
def test_the_column_final_may_stand_as_a_report_has_it(report: Path, status: str, digit: str, final: str) -> None:
    header = ("status", "digit", "final", *COLUMNS)
    corrected(report, table((status, digit, final, *row(0, "")), ("ok", "3", "3", *row(2, "5")), header=header))
    assert list(kept(report).values()) == ["5"]


def test_the_ending_may_be_in_capitals_and_the_ledger_elsewhere(report: Path) -> None:
    Path(f"{report}.ledger").rename(report.with_name("elsewhere.db"))
    corrections = report.with_name("ANSWERS.CSV")
    corrections.write_text(table(row(0, "7")))
    correct(LocalFile(report), corrections, ledger=report.with_name("elsewhere.db"), time=NOW)
    with Database(report.with_name("elsewhere.db")) as database:
        assert database.execute("SELECT answer FROM answers").fetchall() == [("7",)]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (row(5, "12"), "«12» is no answer; expected a digit from 0 to 9, x for"),
        (row(5, "7.5"), "«7.5» is no answer"),
        (row(5, "7,5"), "«7,5» is no answer"),
        (row(5, "-1"), "«-1» is no answer"),
        (row(5, "seven"), "«seven» is no answer"),
        (row(5, "٧"), "«٧» is no answer"),
        (row(5, "\x1b[31m" + "y" * 300), r"«\x1b[31m" + "y" * 195 + "…»"),
        (("a.tif", "1.5", PAGES[5][0], "7"), "«1.5» is no page"),
        (("a.tif", "", PAGES[5][0], "7"), "«» is no page"),
        (("a.tif", "9" * 99, PAGES[5][0], "7"), "is no page"),
        (("a.tif", 3, PAGES[5][0], "7"), "the ledger does not know these bytes"),
        (("a.tif", 0, PAGES[5][0], "7"), "the ledger does not know these bytes"),
        (("a.tif", 1, "12" * 32, "7"), "the ledger does not know these bytes"),
        (("closed.png", 1, "", "7"), "a file that could not be read cannot be answered"),
        (row(0, "8", "other.tif"), "the answer 8 is another than 0 in line 2, and both are about the same bytes"),
        (("a", 1, PAGES[5][0], "7", "more"), "line 102 has 5 cells, but the first line 4"),
    ],
)
def test_a_bad_last_line_is_named_and_nothing_is_half_imported(
    report: Path, bad: tuple[object, ...], expected: str
) -> None:
    good = [row(page, str(page % 10)) for page in range(100)]
    good[5] = row(5, "")
    [head, problem] = refused(report, table(*good, bad))
    assert str(report.with_name("answers.csv")) in head
    assert "none of them was" in head
    assert problem.startswith("line 102")
    assert expected in problem
    assert kept(report) == {}


def test_an_empty_file_cannot_be_answered_since_all_of_them_are_alike(report: Path) -> None:
    [line] = refused(report, table(("a.tif", 1, hashlib.sha256(b"").hexdigest(), "7")))[1:]
    assert line == "line 2, a.tif, page 1: the file is empty, and so are others: nobody can say what should stand in it"


def test_all_bad_lines_are_named_in_order_with_their_files(report: Path) -> None:
    lines = refused(
        report,
        table(
            ("'=1+1.tif", 1, "12" * 32, "7"),
            row(0, "8"),
            row(1, "ten", r"b\x0a.tif"),
            ("c.tif", 2, "12" * 32, "7"),
            row(0, "9", "d\u202e.tif"),
        ),
    )[1:]
    assert [line.partition(": ")[0] for line in lines] == [
        "line 2, =1+1.tif, page 1",
        r"line 4, b\x0a.tif, page 2",
        "line 5, c.tif, page 2",
        r"line 6, d\u202e.tif, page 1",
    ]


def test_of_many_bad_lines_the_first_twenty_are_named_and_the_others_counted(report: Path) -> None:
    _, *lines, more = refused(report, table(*(row(page, "?") for page in range(100))))
    assert [line.partition(",")[0] for line in lines] == [f"line {number}" for number in range(2, 22)]
    assert more == "and 80 more"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "does not name each of the columns path and corrected once"),
        (b"path,page,sha256\r\na,1,2\r\n", "it begins with «path,page,sha256"),
        (b"path;page,sha256,corrected\r\n", "separated by , or ; or tabs"),
        (b"path,page,sha256,corrected,corrected\r\n", "once"),
        ("path,page,sha256\r\n".encode("utf-16"), "it begins with «path,page,sha256"),
        (table(("a.tif", 1, "ab", "7")).encode("utf-16") + b"\0", "are no CSV"),
        (b"PK\x03\x04 no table at all " * 9999, "does not name"),
        (b'path,page,sha256,corrected\r\n"a.tif,1,2,7\r\nb.tif,1,2,7\r\n', "are no CSV: unexpected end of data"),
        (b'path,page,sha256,corrected\r\n"a"b,1,2,7\r\n', "are no CSV"),
        (b"path,page,sha256,corrected\r\n" + b"a" * 200_000 + b",1,2,7\r\n", "are no CSV: field larger"),
    ],
)
def test_what_is_no_table_of_answers_is_refused(report: Path, text: bytes, expected: str) -> None:
    [message] = refused(report, text)
    assert expected in message
    assert str(report.with_name("answers.csv")) in message
    assert len(message) < 1000


@pytest.mark.parametrize("name", ["answers.ods", "answers", "answers.csv.zip"])
def test_another_ending_is_refused_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} is unknown; save the table as one of \.csv, \.parquet"):
        correct(LocalFile(tmp_path / "report.csv"), tmp_path / name, ledger=None, time=NOW)
    assert names(tmp_path) == []


def test_a_report_without_a_ledger_is_refused_and_none_is_made(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    report.write_text(table(row(0, "7")))
    with pytest.raises(StorageError, match=r"report\.csv\.ledger does not exist.*predict first.*--ledger"):
        correct(LocalFile(report), report, ledger=None, time=NOW)
    with pytest.raises(StorageError, match=r"other\.ledger does not exist"):
        correct(LocalFile(report), report, ledger=tmp_path / "other.ledger", time=NOW)
    assert names(tmp_path) == ["report.csv"]


def test_corrections_that_are_not_there_are_named(report: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.csv cannot be read"):
        correct(LocalFile(report), report.with_name("nowhere.csv"), ledger=None, time=NOW)


def test_a_ledger_that_a_run_holds_is_left_alone(report: Path) -> None:
    with held(Path(f"{report}.ledger"), wait_seconds=0), pytest.raises(Locked, match=f"pid {os.getpid()}"):
        corrected(report, table(row(0, "7")))
    assert kept(report) == {}


def test_a_damaged_answer_is_noticed_before_others_are_taken_in(report: Path) -> None:
    corrected(report, table(row(0, "7")))
    with Database(Path(f"{report}.ledger")) as database:
        database.execute("UPDATE answers SET answer = '1'")
    with pytest.raises(StorageError, match="damaged"):
        corrected(report, table(row(1, "7")))
    assert kept(report) == {PAGES[0]: "1"}


# ---- the command ---------------------------------------------------------------------------------------------------


def edited(report: Path, answers: dict[str, str]) -> None:
    """Answer in a report, and save it as a European spreadsheet does: `;`, byte-order mark, a 7 as 7."""
    with report.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    for cells in rows:
        cells[header.index("corrected")] = answers.get(cells[header.index("path")], "")
    with report.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])


def escaped(report: Path) -> dict[str, tuple[str, str]]:
    with report.open(encoding="utf-8", newline="") as file:
        return {cells["path"]: (cells["corrected"], cells["final"]) for cells in csv.DictReader(file)}


def from_message(result: Result) -> list[str]:
    """The command that a message names, as a shell would take it."""
    [line] = [line for line in result.stderr.splitlines() if "over with: " in line]
    program, *arguments = shlex.split(line.partition("over with: ")[2])
    assert program == "batchdigits"
    return arguments


def test_an_edited_report_is_kept_and_its_answers_are_taken_over_by_the_command_that_is_named(tmp_path: Path) -> None:
    folder, report = tmp_path / "my scans", tmp_path / "it's the report.csv"
    for number in (1, 4, 7):
        write_png(folder / f"={number}.png", 255 - one_of_each()[number])
    predicting = ("predict", folder, "-o", report, "--runtime", "litert")
    assert batchdigits(*predicting).code == 0
    edited(report, {"'=1.png": "7", "'=4.png": "X"})
    write_png(folder / "new.png", 255 - one_of_each()[3])
    again = batchdigits(*predicting)
    assert again.code == 0
    assert escaped(report) == {"'=1.png": ("", "1"), "'=4.png": ("", "4"), "'=7.png": ("", "7"), "new.png": ("", "3")}
    arguments = from_message(again)
    taken = batchdigits(*arguments)
    assert taken.code == 0
    assert taken.stderr.startswith(
        f"2 answers taken into {report}.ledger (2 new, 0 changed)\n2 answered, 0 left, 2 to audit\n"
    )
    final = batchdigits(*predicting, "-v", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert final.code == 0
    assert " numpy\n" in final.stderr  # so that the list is one
    assert not re.search(r" (tensorflow|ai_edge_litert)\n", final.stderr)
    assert escaped(report) == {"'=1.png": ("7", "7"), "'=4.png": ("x", ""), "'=7.png": ("", "7"), "new.png": ("", "3")}
    time = written(report)
    assert "was edited" not in batchdigits(*predicting).stderr
    assert written(report) == time
    assert "(0 new, 0 changed)" in batchdigits(*arguments).stderr


def test_the_command_names_its_errors_and_loads_nothing_heavy(tmp_path: Path) -> None:
    none = batchdigits("correct", tmp_path / "report.csv", tmp_path / "answers.csv")
    assert (none.code, "does not exist" in none.message) == (5, True)
    workbook = batchdigits(
        "correct", tmp_path / "report.csv", tmp_path / "answers.ods", "-v", env={"PYTHONPROFILEIMPORTTIME": "1"}
    )
    assert workbook.code == 2
    assert " batchdigits.reports.corrections\n" in workbook.stderr  # so that the list is one
    for library in ("tensorflow", "pandas", "pyarrow", "openpyxl", "xlsxwriter", "cv2", "PIL"):
        assert f" {library}\n" not in workbook.stderr


# ---- the command that is named -------------------------------------------------------------------------------------


def advice(report: Path, ledger: Path | None, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of how to take the answers of an edited report over; empty where nothing is."""
    file = LocalFile(report)
    with ledger_at(ledger) as opened:
        for text in (b"published", b"published again"):
            with atomic_write_all([file], keeper=Replacing(published_reports(opened, [file]), [locate("scans")])) as [
                handle
            ]:
                handle.write(text)
            if text == b"published":
                report.write_bytes(b"edited")
    [message] = caplog.messages
    return message.partition("over with: ")[2]


@pytest.mark.parametrize(
    "name",
    [
        "report.csv",
        "my report.CSV",
        "it's $HOME `x`.csv",
        "back\\slash 'and' quote.csv",
        "a\tb\n\x1b.csv",
        "\u202ereport.csv",
        "é\x85.csv",
        os.fsdecode(b"\xff9.csv"),
    ],
)
def test_the_command_is_one_for_a_shell_whatever_the_names(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / name
    command = advice(report, beside(LocalFile(report)), caplog)
    assert command.isprintable()
    printing = ["bash", "-c", command.replace("batchdigits correct", r"printf '%s\0'", 1)]
    done = subprocess.run(printing, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    [kept] = tmp_path.glob("*.edited-*")
    assert [os.fsdecode(argument) for argument in done.stdout.split(b"\0")] == [str(report), str(kept), ""]


def test_the_command_names_a_ledger_that_is_not_beside_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(advice(tmp_path / "b.csv", Path("a.csv.ledger"), caplog))
    assert arguments[-2:] == ["--ledger", str(tmp_path / "a.csv.ledger")]


def test_the_command_knows_the_default_ledger_by_whatever_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert "--ledger" not in advice(Path("link/a.csv"), Path("link/a.csv.ledger"), caplog)


def test_where_no_ledger_can_take_answers_over_no_command_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert advice(tmp_path / "a.csv", None, caplog) == ""


def parquet(report: Path, columns: dict[str, Any]) -> Path:
    path = report.with_name("answers.parquet")
    pq.write_table(pa.table(columns), path)
    return path


def test_answers_are_taken_from_parquet_however_it_types_them(report: Path) -> None:
    keys = PAGES[:5]
    columns = {
        "path": ["a.tif"] * 5,
        "page": pa.array([number for _, number in keys], pa.int32()),
        "sha256": [sha256 for sha256, _ in keys],
        "corrected": [None, "7", "x", "", "0"],
        "digit": [1] * 5,
    }
    correct(LocalFile(report), parquet(report, columns), ledger=None, time=NOW)
    assert kept(report) == {keys[1]: "7", keys[2]: "x", keys[4]: "0"}
    columns["corrected"] = [float("nan"), 3.0, None, 4.0, 5.0]
    correct(LocalFile(report), parquet(report, columns), ledger=None, time=NOW)
    assert kept(report) == {keys[1]: "3", keys[2]: "x", keys[3]: "4", keys[4]: "5"}


def test_what_is_no_parquet_table_of_answers_is_refused(report: Path) -> None:
    with pytest.raises(UsageError, match="does not have one column sha256; expected path, page, sha256, corrected"):
        correct(
            LocalFile(report), parquet(report, {"path": ["a"], "page": [1], "corrected": ["7"]}), ledger=None, time=NOW
        )
    report.with_name("answers.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match=r"answers\.parquet is no Parquet file .*; save it anew"):
        correct(LocalFile(report), report.with_name("answers.parquet"), ledger=None, time=NOW)
    wrong = parquet(report, {"path": ["a"], "page": [1], "sha256": ["ab" * 32], "corrected": [12]})
    with pytest.raises(UsageError, match="line 1, a, page 1: «12» is no answer"):
        correct(LocalFile(report), wrong, ledger=None, time=NOW)
    assert kept(report) == {}


def workbook(report: Path, answers: dict[str, object]) -> Path:
    """A workbook about the first six pages, three of them for review and two answered, as people fill it in.

    On Review stand the second page, the last one, which is no digit, and the fourth, which is blank.

    Args:
        report: Stands beside it.
        answers: By sheet and cell, such as `Review!2`: the second row that is about a page.
    """
    path = report.with_name("answers.xlsx")
    with path.open("w+b") as handle, XlsxReport(handle, ABOUT, ReportSettings()) as written:
        for page, (status, known) in enumerate(
            [("ok", ""), ("review", ""), ("review", "2"), ("blank", ""), ("ok", "4"), ("not_a_digit", "")]
        ):
            sha256, number = PAGES[page]
            final = np.array([int(known or 7 if status == "ok" else known or -1)], np.int8)
            path_of_page = [f"={page}.tif"]
            written.write(
                seven(*path_of_page, page=[number], status=[status], corrected=[known], final=final, sha256=[sha256])
            )
    whole = openpyxl.load_workbook(path)
    for place, answer in answers.items():
        title, row = place.split("!")
        cell_of(whole[title], "corrected", int(row) + 1).value = answer
    whole.save(path)
    return path


def cell_of(sheet: Any, name: str, row: int, *, header: int = 1) -> Any:
    """The cell of a row below the one header of a name."""
    [column] = [cell.column for cell in sheet[header] if cell.value == name]
    return sheet.cell(row, column)


def test_answers_are_taken_from_both_sheets_of_a_workbook_as_text_or_number(report: Path) -> None:
    known = {PAGES[2]: "2", PAGES[4]: "4"}
    correct(LocalFile(report), workbook(report, {}), ledger=None, time=NOW)
    assert kept(report) == known
    typed = {"Review!1": 0, "Review!2": "x", "Review!3": " 3 ", "Results!1": 9.0}
    said = correct(LocalFile(report), workbook(report, typed), ledger=None, time=NOW)
    assert "6 answers" in said
    assert "(4 new, 0 changed)" in said
    assert kept(report) == {**known, PAGES[1]: "0", PAGES[5]: "x", PAGES[3]: "3", PAGES[0]: "9"}


def test_rows_above_the_names_of_a_sheets_columns_are_titles(report: Path) -> None:
    given = workbook(report, {"Review!1": 3, "Results!1": 9})
    whole = openpyxl.load_workbook(given)
    whole["Review"].insert_rows(1, 2)
    whole["Review"]["A1"] = "Scans of March"
    cell = cell_of(whole["Review"], "corrected", 5, header=3)
    cell.value = "y"
    whole.save(given)
    with pytest.raises(UsageError, match="line 5 of Review"):
        correct(LocalFile(report), given, ledger=None, time=NOW)
    cell.value = None
    whole.save(given)
    correct(LocalFile(report), given, ledger=None, time=NOW)
    assert kept(report) == {PAGES[0]: "9", PAGES[1]: "3", PAGES[2]: "2", PAGES[4]: "4"}


@pytest.mark.parametrize("title", ["Review", "Mine"])
def test_a_sheet_with_answers_whose_columns_lost_their_names_is_not_passed_over(report: Path, title: str) -> None:
    given = workbook(report, {"Review!1": 3})
    whole = openpyxl.load_workbook(given)
    whole["Review"].title = title
    cell_of(whole[title], "path", 1).value = "file"
    whole.save(given)
    with pytest.raises(UsageError, match=f"The sheet {title} of .* has no row that names each of path, page"):
        correct(LocalFile(report), given, ledger=None, time=NOW)
    assert kept(report) == {}


def test_an_answer_that_a_workbook_knows_is_changed_where_it_stands_and_contradicts_nothing(report: Path) -> None:
    correct(LocalFile(report), workbook(report, {"Results!3": "8", "Results!5": "c"}), ledger=None, time=NOW)
    assert kept(report) == {PAGES[2]: "8", PAGES[4]: "c"}


def test_a_workbook_that_is_older_than_the_ledger_takes_nothing_back(
    report: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stale = workbook(report, {"Review!1": "3"})  # it knows 2 and 4
    corrected(report, table(row(2, "9"), row(4, "x")))
    said = correct(LocalFile(report), stale, ledger=None, time=NOW)
    assert kept(report) == {PAGES[1]: "3", PAGES[2]: "9", PAGES[4]: "x"}
    assert ("1 answer taken" in said, caplog.messages) == (True, [])
    correct(LocalFile(report), workbook(report, {"Results!3": "7"}), ledger=None, time=NOW)  # typed over what it knows
    assert kept(report)[PAGES[2]] == "7"
    assert caplog.messages == ["line 4 of Results, =2.tif, page 1: the answer 9 becomes 7."]


def test_an_emptied_cell_of_a_workbook_takes_its_answer_back(report: Path, caplog: pytest.LogCaptureFixture) -> None:
    corrected(report, table(row(2, "2"), row(4, "4")))
    said = correct(LocalFile(report), workbook(report, {"Results!3": None}), ledger=None, time=NOW)
    assert kept(report) == {PAGES[4]: "4"}
    assert "1 withdrawn" in said
    assert caplog.messages == ["line 4 of Results, =2.tif, page 1: the answer 2 is withdrawn."]


def test_of_copies_of_an_image_one_answer_may_be_changed(report: Path) -> None:
    sha256, number = PAGES[0]
    path = report.with_name("answers.xlsx")
    with path.open("w+b") as handle, XlsxReport(handle, ABOUT, ReportSettings()) as written:
        for name in ("a", "b", "c"):
            written.write(seven(name, page=[number], sha256=[sha256], corrected=["7"]))
    whole = openpyxl.load_workbook(path)
    cell_of(whole["Results"], "corrected", 3).value = 2
    whole.save(path)
    correct(LocalFile(report), path, ledger=None, time=NOW)
    assert kept(report) == {PAGES[0]: "2"}


def test_the_same_answer_on_both_sheets_is_one(report: Path) -> None:
    correct(LocalFile(report), workbook(report, {"Review!1": 3, "Results!2": "3"}), ledger=None, time=NOW)
    assert kept(report)[PAGES[1]] == "3"


def test_wrong_cells_of_a_workbook_are_named_with_their_sheet(report: Path) -> None:
    given = workbook(report, {"Review!1": 3, "Results!2": "5", "Review!2": 12, "Results!1": True})
    with pytest.raises(UsageError) as error:
        correct(LocalFile(report), given, ledger=None, time=NOW)
    _, *lines = str(error.value).split("\n  ")
    assert lines == [
        "line 2 of Results, =0.tif, page 1: «True» is no answer; expected a digit from 0 to 9, x for no digit, c "
        "where nobody can tell, or withdraw",
        "line 2 of Review, =1.tif, page 2: the answer 3 is another than 5 in line 3 of Results, and both are about the "
        "same bytes",
        "line 3 of Review, =5.tif, page 2: «12» is no answer; expected a digit from 0 to 9, x for no digit, c "
        "where nobody can tell, or withdraw",
    ]
    assert kept(report) == {}


def test_an_edited_workbook_is_kept_and_its_answers_are_taken_over_by_the_command_that_is_named(tmp_path: Path) -> None:
    folder, report = tmp_path / "scans", tmp_path / "report.xlsx"
    for number in (1, 4, 7):
        write_png(folder / f"={number}.png", 255 - one_of_each()[number])
    predicting = [sys.executable, "-m", "tests.fake_model_cli", "predict", folder, "-o", report, "--threshold", "1"]

    def predict() -> Result:
        return run(predicting, cwd=CHECKOUT)

    def shown_on(title: str) -> list[tuple[object, ...]]:
        """The path, `corrected` and `final` of a sheet's rows."""
        header, *rows = openpyxl.load_workbook(report, data_only=True)[title].values
        return [tuple(row[header.index(name)] for name in ("path", "corrected", "final")) for row in rows]

    assert predict().code == 0
    assert [path for path, *_ in shown_on("Review")] == ["=1.png", "=4.png", "=7.png"]
    whole = openpyxl.load_workbook(report)
    for row, answer in ((2, 8), (4, "x")):
        cell_of(whole["Review"], "corrected", row).value = answer
    whole.save(report)
    again = predict()
    assert (again.code, shown_on("Results")[0]) == (0, ("=1.png", None, None))
    taken = batchdigits(*from_message(again))
    assert taken.stderr.startswith(f"2 answers taken into {report}.ledger (2 new, 0 changed)\n2 answered, 1 left\n")
    assert predict().code == 0
    assert shown_on("Results") == [("=1.png", "8", 8), ("=4.png", None, None), ("=7.png", "x", None)]
    assert [path for path, *_ in shown_on("Review")] == ["=4.png"]
    time = written(report)
    assert "was edited" not in predict().stderr
    assert written(report) == time

import csv
import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
import openpyxl
import pytest
from openpyxl.utils.escape import unescape

from batchdigits.errors import StorageError, UsageError, escape_name
from batchdigits.records import Status
from batchdigits.reports.formats.xlsx import XlsxReport, text_rows
from batchdigits.reports.schema import COLUMNS, Rows
from batchdigits.settings import ReportSettings
from batchdigits.storage.atomic import atomic_write
from tests.file_states import disk_of, names
from tests.reports.report_rows import ABOUT, a_thousand_names, doubtful, seven, sevens, unreadable

HEADER = [column.name for column in COLUMNS if column.name != "probabilities"] + ["known"]
TABLES = ("Results", "Review", "Errors")
NO_DIGITS = np.array([-1], np.int8)


def write_to(handle: Any, *chunks: Rows, about: Any = ABOUT) -> None:
    with XlsxReport(handle, about, ReportSettings()) as report:
        for rows in chunks:
            report.write(rows)


def written(*chunks: Rows, about: Any = ABOUT) -> bytes:
    handle = io.BytesIO()
    write_to(handle, *chunks, about=about)
    return handle.getvalue()


def book(*chunks: Rows, about: Any = ABOUT) -> Any:
    """The workbook with its formulas."""
    return openpyxl.load_workbook(io.BytesIO(written(*chunks, about=about)))


def table(sheet: str, *chunks: Rows, about: Any = ABOUT) -> list[tuple[Any, ...]]:
    """The cells of a sheet, a formula by the value that it had when it was written."""
    whole = openpyxl.load_workbook(io.BytesIO(written(*chunks, about=about)), data_only=True)
    return list(whole[sheet].iter_rows(values_only=True))


def png(width: int, height: int, grey: int = 90) -> bytes:
    return cv2.imencode(".png", np.full((height, width), grey, np.uint8))[1].tobytes()


# ---- the sheets ----------------------------------------------------------------------------------------------------


def test_a_workbook_has_five_sheets_even_without_rows() -> None:
    assert book().sheetnames == ["Results", "Review", "Summary", "Errors", "About"]
    assert table("Results") == [tuple(HEADER)]


def test_a_row_reads_back_typed_and_empty_cells_are_empty() -> None:
    header, first, second, fault = table(
        "Results", seven(), seven(corrected=["0"], final=np.array([0], np.int8)), unreadable()
    )
    assert list(header) == HEADER
    assert dict(zip(header, first, strict=True)) == {
        **{"path": "7.png", "page": 1, "status": "ok", "digit": 7, "confidence": 0.9731},
        **{"runner_up": 1, "runner_up_confidence": 0.0269, "corrected": None, "final": None, "detail": None},
        **{"width": 28, "height": 30, "sha256": "ab" * 32, "model": "0123456789ab", "known": None},
    }
    assert (second[2], second[6]) == (0, "0")
    assert [name for name, cell in zip(header, fault, strict=True) if cell is not None] == ["path", "page", "status"]


def test_every_table_has_a_frozen_header_a_filter_and_a_title_on_each_printed_page() -> None:
    whole = book(sevens(["a", "b"]), doubtful(), unreadable())
    assert [whole[title].freeze_panes for title in TABLES] == ["B2", "C2", "B2"]
    assert [whole[title].auto_filter.ref for title in TABLES] == ["A1:O5", "A1:K2", "A1:D2"]
    assert [whole[title].print_title_rows for title in TABLES] == ["$1:$1"] * 3
    assert {whole[title].page_setup.orientation for title in TABLES} == {"landscape"}


def test_one_rule_covers_a_column_however_many_rows_there_are() -> None:
    whole = book(sevens(["a"] * 500), *[doubtful()] * 3)
    for title, answers, shares in (("Results", "G2:G504", "F2:F504"), ("Review", "B2:B4", "D2:D4")):
        [rule] = whole[title].data_validations.dataValidation
        assert (str(rule.sqref), rule.type, rule.formula1) == (answers, "list", '"0,1,2,3,4,5,6,7,8,9,x,c,withdraw"')
        assert rule.showErrorMessage
        [colours] = whole[title].conditional_formatting
        assert (str(colours.sqref), [rule.type for rule in colours.rules]) == (shares, ["colorScale"])
    assert not whole["Errors"].data_validations.dataValidation


def test_shares_are_shown_in_percent_and_names_and_answers_stay_text_when_edited() -> None:
    sheet = book(seven())["Results"]
    assert [sheet[cell].number_format for cell in ("A2", "F2", "J2", "G2")] == ["@", "0.00%", "0.00%", "@"]


def test_final_follows_the_corrected_of_its_own_row_alone() -> None:
    whole = book(seven(), doubtful())
    for title, cell, own in (("Results", "C3", "GDE"), ("Review", "J2", "BHC")):
        formula = whole[title][cell].value
        assert set(re.findall(r"[A-Z]+\d+", formula)) == {f"{column}{cell[1:]}" for column in own}
        assert "!" not in formula


def test_review_lists_with_its_picture_what_people_should_look_at_and_have_not_answered() -> None:
    chunks = [
        *(seven(f"{status}.png", status=[status], thumbnail=[png(96, 48)]) for status in Status),
        doubtful("answered.png", corrected=["7"]),
        seven("audited.png", audit=np.array([True]), thumbnail=[png(28, 28)]),
        seven("audited and answered.png", audit=np.array([True]), corrected=["7"]),
        doubtful("without a picture.png"),
    ]
    header, *rows = table("Review", *chunks)
    assert header == (
        *("picture", "corrected", "digit", "confidence", "runner_up", "path", "page", "status", "detail", "final"),
        "sha256",
    )
    listed = ["review.png", "without a picture.png", "not_a_digit.png", "blank.png", "audited.png"]
    assert [row[5] for row in rows] == listed
    assert {row[1] for row in rows} == {None}
    pictures = book(*chunks)["Review"]._images
    assert [(picture.anchor._from.col, picture.anchor._from.row) for picture in pictures] == [
        (0, n) for n in (1, 3, 4, 5)
    ]
    assert [picture._data() for picture in pictures] == [png(96, 48)] * 3 + [png(28, 28)]
    assert {picture.anchor.editAs for picture in pictures} == {None}  # twoCell: they go with their rows


def test_the_workbook_opens_on_review_whose_rows_stand_as_on_the_page() -> None:
    def unsure(path: str, digit: int, confidence: float, **changes: Any) -> Rows:
        return doubtful(path, digit=np.array([digit], np.int8), confidence=np.array([confidence]), **changes)

    audited = seven("audited", audit=np.array([True]))
    chunks = [audited, unsure("a", 7, 0.5), unsure("b", 3, 0.8), unsure("c", 7, 0.4), unsure("d", 3, 0.8)]
    chunks.append(unsure("e", 7, 0.9, detail=["may be no digit"]))
    whole = book(*chunks)
    assert whole.active is not None
    assert whole.active.title == "Review"
    _, *rows = whole["Review"].values
    assert [row[5] for row in rows] == ["b", "d", "e", "c", "a", "audited"]


def test_how_to_answer_stands_in_a_note_at_the_head_of_the_answers() -> None:
    whole = book(doubtful())
    for title, cell in (("Results", "G1"), ("Review", "B1")):
        assert whole[title][cell].value == "corrected"
        assert "batchdigits correct" in whole[title][cell].comment.text


def test_no_header_is_cut_by_the_button_of_its_filter() -> None:
    whole = book(doubtful(), unreadable())
    for title in TABLES:
        for cell in whole[title][1]:
            width = whole[title].column_dimensions[cell.column_letter].width
            assert width >= len(cell.value) + 4, (title, cell.value)


def test_a_picture_stays_in_its_cell() -> None:
    chunks = [doubtful(thumbnail=[png(*shape)]) for shape in ((96, 1), (1, 96), (96, 96), (3, 2))]
    sheet = book(*chunks)["Review"]
    for picture in sheet._images:
        start, end = picture.anchor._from, picture.anchor.to
        assert (end.col, end.row) == (start.col, start.row)
    assert len(sheet._images) == 4


def test_beyond_the_first_thousands_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchdigits.reports.formats.worksheet._MOST_PICTURES", 2)
    sheet = book(*[doubtful(thumbnail=[png(9, 9, grey)]) for grey in range(4)])["Review"]
    assert len(sheet._images) == 2
    assert [sheet[f"A{row}"].value for row in range(2, 6)] == [None] * 2 + ["after 2 pictures, no more"] * 2


def test_errors_lists_what_could_not_be_read() -> None:
    chunks = [seven(f"{status}.png", status=[status], detail=["why"]) for status in Status]
    assert table("Errors", *chunks) == [
        ("path", "page", "status", "detail"),
        *((f"{name}.png", 1, name, "why") for name in ("unreadable", "too_large", "unsupported")),
    ]


def summary(*chunks: Rows, about: Any = ABOUT) -> dict[str, tuple[Any, ...]]:
    return {note: values for note, *values in table("Summary", *chunks, about=about) if note}  # type: ignore[misc]


def test_the_summary_counts_rows_digits_and_the_sample() -> None:
    audited = np.array([True])
    told = summary(
        sevens(["a", "b"]),
        *(
            seven(audit=audited, corrected=[answer], sha256=[answer * 64])
            for answer in ("", "7", "1", "x", "x")  # the last two are copies
        ),
        doubtful(),
        doubtful(corrected=["1"], final=np.array([1], np.int8)),
        unreadable(),
    )
    assert told["ok"] == [7, 7 / 10]
    assert told["review"] == [2, 2 / 10]
    assert told["unreadable"] == [1, 1 / 10]
    assert told["blank"] == [0, 0]
    assert told["all"][0] == 10
    assert told["7"] == [9, 0]
    assert told["1"] == [0, 1]
    assert told["For review, of all digits that were read"] == [None, 2 / 9]
    assert told["In the sample"] == [4, 4 / 7]
    assert told["Of these, answered"] == [3, 3 / 4]
    assert told["Of these, wrong"] == [2, 2 / 3]


def test_the_summary_tells_from_what_confidence_a_digit_is_ok_and_what_that_is_worth() -> None:
    told = summary()
    assert "A digit is ok from a confidence of 90.00% on." in told
    assert f"Trust: {ABOUT.trust}." in told


def test_about_says_what_the_report_was_made_by_and_under() -> None:
    pairs = dict(table("About")[1:])
    assert len(pairs) == len(ABOUT.metadata())
    assert pairs["From how sure on a digit is ok, and needs nobody to look at it, 0 to 1"] == "0.9"
    assert pairs["The model that read the images"] == ABOUT.model


def test_about_is_in_plain_words() -> None:
    about = replace(ABOUT, target_error=None, expected_error=None, basis="given", answers_missing=(299, 0, None))
    pairs = dict(list(book(about=about)["About"].values)[1:])
    told = [str(value) for value in pairs.values()]
    assert "299 for 1.0%, none for 0.5%, more than anybody can give for 0.1%" in told
    assert "somebody named it" in told
    assert "too few digits to tell" in told
    assert "none: the threshold was named" in told
    assert "512 MB" in told
    assert not any("None" in value for value in told)


def test_what_about_says_at_length_has_room_below() -> None:
    whole = book(about=replace(ABOUT, trust="target error 0.50% " + "as clear as these scans are " * 5))
    sheet = whole["About"]
    heights = {sheet.cell(row, 1).value: sheet.row_dimensions[row].height for row in range(2, sheet.max_row + 1)}
    assert heights["What the digits that are ok are worth"] >= 3 * 15
    assert heights["The model that read the images"] is None  # as high as any row


# ---- more rows than a sheet holds ----------------------------------------------------------------------------------


def test_what_a_sheet_cannot_hold_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("batchdigits.reports.formats.worksheet._MOST_ROWS", 3)
    chunks = [sevens(["a", "b", "c", "d"]), doubtful("e", thumbnail=[png(9, 9)]), sevens(["f", "g"])]
    whole = book(*chunks)
    assert whole.sheetnames == ["Results", "Review", "Summary", "Errors", "About", "Results 2", "Results 3"]
    assert [row[0] for title in ("Results", "Results 2", "Results 3") for row in whole[title].values] == [
        *("path", "a", "b", "c"),
        *("path", "d", "e", "f"),
        *("path", "g"),
    ]
    assert whole["Results 2"].auto_filter.ref == "A1:O4"
    assert str(whole["Results 3"].data_validations.dataValidation[0].sqref) == "G2"
    assert "G2" in whole["Results 3"]["C2"].value
    (tmp_path / "r.xlsx").write_bytes(written(*chunks))
    read = [(sheet, row) for sheet, row, *_ in text_rows(tmp_path / "r.xlsx", ("path", "corrected"))]
    assert read == [
        *(("Results", row) for row in (2, 3, 4)),
        ("Review", 2),
        *(("Results 2", row) for row in (2, 3, 4)),
        ("Results 3", 2),
    ]


# ---- what texts hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "{=1+1}", "+1", "-1", "@SUM(A1)", "'7", "007", "1e5", "TRUE", "#N/A", "7.png", " 7 ", "\t7\n"),
        *(
            "http://example.org/7.png",
            "https://example.org",
            "mailto:a@b.c",
            "internal:Results!A1",
            "ftp://a",
            "<b>&amp;",
        ),
        *("<r>a</r>", "<r><t>7</t></r>", "_x0041_", "_x0041_x0042_", "_x005F_x0041_", "__x0041__", "_x00e9_", "_x41_"),
    ],
)
def test_a_text_stays_the_text_that_it_is(text: str) -> None:
    sheet = book(seven(text, detail=[text], status=["unreadable"]))["Results"]
    assert [sheet[cell].data_type for cell in ("A2", "H2")] == ["s", "s"]
    assert [unescape(sheet[cell].value) for cell in ("A2", "H2")] == [text, text]
    assert sheet["A2"].hyperlink is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 32_767, "a" * 32_767),
        ("a" * 32_768, "a" * 32_766 + "…"),
        ("\U0001f58a" * 16_383, "\U0001f58a" * 16_383),
        ("\U0001f58a" * 16_384, "\U0001f58a" * 16_383 + "…"),
        ("a" + "\U0001f58a" * 16_384, "a" + "\U0001f58a" * 16_382 + "…"),
    ],
)
def test_a_text_that_no_cell_can_hold_is_cut_and_says_so(text: str, expected: str) -> None:
    assert table("Results", seven(detail=[text]))[1][7] == expected


def test_the_longest_path_that_linux_knows_is_written_whole() -> None:
    path = escape_name("\udcff" * 4096)
    assert len(path) == 16_384
    assert table("Results", seven(path))[1][0] == path


# ---- the file ------------------------------------------------------------------------------------------------------


def test_the_archive_tells_no_time() -> None:
    with zipfile.ZipFile(io.BytesIO(written(seven(), doubtful(thumbnail=[png(9, 9)])))) as archive:
        assert {entry.date_time[:3] for entry in archive.infolist()} == {(1980, 1, 31)}
        core = archive.read("docProps/core.xml").decode()
    assert set(re.findall(r"\d{4}-\d\d-\d\dT[\d:]+Z", core)) == {"2000-01-01T00:00:00Z"}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_no_temporary_file_stays_behind(tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "r.xlsx"

    def broken() -> None:
        with atomic_write(path) as handle, XlsxReport(handle, ABOUT, ReportSettings()) as report:
            report.write(seven())
            assert names(temporary) != []
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert (names(tmp_path), names(temporary)) == (["temporary"], [])
    with atomic_write(path) as handle:
        write_to(handle, seven())
    assert (names(tmp_path), names(temporary)) == (["r.xlsx", "temporary"], [])


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_full_disk_is_named_and_leaves_the_old_report(tmp_path: Path, temporary: Path, rows: int) -> None:
    path = tmp_path / "r.xlsx"
    path.write_text("old")
    many = [f"{number:099}" for number in range(rows)]
    expected = rf"The draft of .*r\.xlsx in {temporary} \(set by TMPDIR\) cannot be written: the disk is full"
    with disk_of(2000), pytest.raises(StorageError, match=expected), atomic_write(path) as handle:
        write_to(handle, sevens(many))
    assert path.read_text() == "old"
    assert (names(tmp_path), names(temporary)) == (["r.xlsx", "temporary"], [])


class Full(io.BytesIO):
    """A disk that is full after some bytes, and says so as the drafts of reports do."""

    name = "r.xlsx"
    room = 0

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            message = "r.xlsx cannot be written: the disk is full"
            raise StorageError(message)
        return super().write(data)


@pytest.mark.parametrize("room", [0, 10, 3000])
def test_a_report_that_finds_no_room_names_itself(room: int) -> None:
    handle = Full()
    handle.room = room
    with pytest.raises(StorageError, match=r"^r\.xlsx cannot be written"):
        write_to(handle, sevens([f"{number}.png" for number in range(100)]))


def test_the_archive_of_a_report_that_found_no_room_ends_whatever_is_collected_before_it() -> None:
    handle = Full()
    handle.room = 3000
    report = XlsxReport(handle, ABOUT, ReportSettings())
    with pytest.raises(StorageError), report:
        report.write(sevens([f"{number}.png" for number in range(100)]))
    sink = report._sink.handle
    assert not hasattr(sink, "__del__")  # as a file has, which closes it
    with zipfile.ZipFile(cast("BinaryIO", sink), "w") as archive:
        archive.writestr("a", "a")
    assert sink.tell() > 0


# ---- reading answers back ------------------------------------------------------------------------------------------


def sheets(path: Path, *tables: list[list[Any]]) -> Path:
    whole = openpyxl.Workbook()
    whole.remove(whole.active)
    for rows in tables:
        sheet = whole.create_sheet()
        for row in rows:
            sheet.append(row)
    whole.save(path)
    return path


def test_cells_are_read_as_text_however_they_are_typed_and_ordered(tmp_path: Path) -> None:
    path = sheets(
        tmp_path / "a.xlsx",
        [["b", "c", "a"], [7, None, "x"], [7.0, "more"], [], [7.5, 1, True]],
        [["a", "b", "b"], [1, 2, 3]],
        [],
        [["no"], [1]],
    )
    assert [(row, cells) for _, row, cells, _ in text_rows(path, ("a", "b"))] == [
        *((2, ("x", "7")), (3, ("", "7")), (4, ("", "")), (5, ("True", "7.5"))),
    ]


def test_a_workbook_without_the_columns_is_refused(tmp_path: Path) -> None:
    for tables in ([[["a"], [1]]], [[]]):
        path = sheets(tmp_path / "a.xlsx", *tables)
        with pytest.raises(UsageError, match=r"a\.xlsx has no sheet with a row that names each of a, b once"):
            list(text_rows(path, ("a", "b")))


@pytest.mark.parametrize("cut", [0, 1, 100, -30, -3000])
def test_what_is_no_workbook_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(written(seven())[:cut])
    with pytest.raises(UsageError, match=r"a\.xlsx is no workbook that can be read .*; save it anew"):
        list(text_rows(path, ("path",)))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    for name, text in (("a.txt", "a"), ("[Content_Types].xml", "<Types"), ("[Content_Types].xml", "<Types/>")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, text)
        with pytest.raises(UsageError, match="is no workbook that can be read"):
            list(text_rows(path, ("path",)))


# ---- in LibreOffice ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """What converts a file with LibreOffice, and gives the new file."""
    program = shutil.which("soffice")
    if not program:
        pytest.skip("LibreOffice is missing: install libreoffice-calc to see its part checked")
    profile = tmp_path_factory.mktemp("profile")

    def convert(path: Path, to: str) -> Path:
        folder = path.with_name("converted")
        command = [program, f"-env:UserInstallation={profile.as_uri()}", "--headless", "--convert-to", to]
        subprocess.run([*command, "--outdir", folder, path], check=True, capture_output=True, timeout=100)
        [made] = folder.glob(f"{path.stem}.*")
        return made

    return convert


def test_libreoffice_lets_final_follow_what_is_typed(office: Callable[[Path, str], Path], tmp_path: Path) -> None:
    answers = [None, "3", 4, "x", "X", " 5 ", "0", 0]
    whole = book(*[doubtful()] * len(answers), *[seven(final=np.array([7], np.int8))] * len(answers))
    for row, answer in enumerate(answers, 2):
        whole["Review"][f"B{row}"].value = answer
        whole["Results"][f"G{row + len(answers)}"].value = answer
    whole.save(tmp_path / "r.xlsx")
    saved = office(tmp_path / "r.xlsx", "xlsx")
    typed = [cell for sheet, _, [cell], _ in text_rows(saved, ["corrected"]) if sheet == "Review"]
    assert typed == ["", "3", "4", "x", "X", " 5 ", "0", "0"]
    read = openpyxl.load_workbook(saved, data_only=True)
    found = [read["Review"][f"J{row}"].value for row in range(2, 10)]
    assert [cell or None if cell == "" else cell for cell in found] == [None, 3, 4, None, None, 5, 0, 0]
    found = [read["Results"][f"C{row}"].value for row in range(10, 18)]
    assert [cell or None if cell == "" else cell for cell in found] == [7, 3, 4, None, None, 5, 0, 0]


def test_libreoffice_reads_a_thousand_hostile_names_exactly(
    office: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    paths = a_thousand_names()
    (tmp_path / "r.xlsx").write_bytes(written(sevens(paths)))
    made = office(tmp_path / "r.xlsx", "csv:Text - txt - csv (StarCalc):44,34,76,1")
    with made.open(encoding="utf-8", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == paths

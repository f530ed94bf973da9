"""One run of the real program over a folder that holds everything a folder should not: one row an image, none lost."""

import csv
import hashlib
import io
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.cli_runner import Result, batchdigits
from tests.sample_pages import enlarged, on_page, one_of_each, write_png, write_tiff

DATA = Path(__file__).parent / "data"

# Where the digits stand: the name on the disk, as bytes, and the path cell of its row.
READABLE: dict[bytes, tuple[int, str]] = {
    b"0.png": (0, "0.png"),
    b"with spaces and, \"quotes'.png": (1, "with spaces and, \"quotes'.png"),
    b"line\nbreak\r.png": (7, r"line\x0abreak\x0d.png"),
    "ünï 数字 ٣.PNG".encode(): (0, "ünï 数字 ٣.PNG"),
    "\u202egnp.7.png".encode(): (7, "\u202egnp.7.png"),
    b"caf\xe9 \xff.png": (1, r"caf\xe9 \xff.png"),
    b"back\\slash.png": (6, r"back\\slash.png"),
    b"\x1b[31mred.png": (7, r"\x1b[31mred.png"),
    b'=HYPERLINK("http:/evil.example","x").png': (0, '\'=HYPERLINK("http:/evil.example","x").png'),
    b"+1.png": (1, "'+1.png"),
    b"-1.png": (7, "'-1.png"),
    b"@SUM(A1).png": (6, "'@SUM(A1).png"),
    b"'quoted.png": (0, "''quoted.png"),
    b"\tx.png": (1, r"\x09x.png"),
    b"x.png/inside.png": (7, "x.png/inside.png"),
    b"deep/deeper/deepest/6.png": (6, "deep/deeper/deepest/6.png"),
    b"n" * 251 + b".png": (0, "n" * 251 + ".png"),
    b"not really.jpg": (1, "not really.jpg"),
    b"zzz last.png": (7, "zzz last.png"),
}
BROKEN = {
    "zero_bytes.png": "unreadable",
    "junk.png": "unreadable",
    "junk.jpg": "unreadable",
    "text.gif": "unreadable",
    "bad_checksum.png": "unreadable",
    **{f"truncated.{ending}": "unreadable" for ending in ("bmp", "gif", "jpg", "png", "tif", "webp")},
    **{f"bomb.{ending}": "too_large" for ending in ("gif", "jpg", "png", "tif", "webp")},
    "photo.heic": "unsupported",
    "scan.pdf": "unsupported",
    "drawing.svg": "unsupported",
}
LINKS = {
    "dangling.png": "nowhere.png",
    "loop.png": "loop.png",
    "circle a.png": "circle b.png",
    "circle b.png": "circle a.png",
}
SKIPPED = ["notes.txt", "README", ".hidden.png", "pipe.png", "into deep", "picture.png.part"]


@dataclass(frozen=True, slots=True)
class Night:
    """What was there in the morning."""

    folder: Path
    result: Result
    header: list[str]
    rows: list[dict[str, str]]

    def row(self, path: str) -> dict[str, str]:
        (row,) = (row for row in self.rows if row["path"] == path)
        return row


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (digit, _) in READABLE.items():
        write_png(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), one_of_each()[digit])
    write_tiff(folder / "pages.tif", [enlarged(on_page(one_of_each()[digit]), 3) for digit in (0, 1, 7)])
    write_png(folder / "blank.png", on_page(one_of_each()[1] * 0))
    for name in BROKEN:
        shutil.copyfile(DATA / name, folder / "deep" / name)
    for name in ("broken_second_page.tif", "cut_in_third_page.tif"):
        shutil.copyfile(DATA / name, folder / name)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    (folder / "again.png").symlink_to("0.png")
    (folder / "into deep").symlink_to("deep")
    os.mkfifo(folder / "pipe.png")
    for name in ("notes.txt", "README"):
        (folder / name).write_text("7\n")
    for name in (".hidden.png", "picture.png.part"):
        write_png(folder / name, one_of_each()[3])
    (folder / "report.csv").write_text("last night")
    (folder / "report.parquet").write_text("last night")
    reports = ("-o", folder / "report.csv", "-o", folder / "report.parquet")
    result = batchdigits("predict", folder, *reports, "--runtime", "litert")
    header, *rows = csv.reader(io.StringIO((folder / "report.csv").read_bytes().decode(), newline=""))
    return Night(folder, result, header, [dict(zip(header, row, strict=True)) for row in rows])


def test_the_run_ends_with_exit_code_3(night: Night) -> None:
    assert (night.result.code, night.result.stdout) == (3, "")


def test_every_image_has_one_row_a_page_and_nothing_else_has_one(night: Night) -> None:
    pages = {cell: 1 for _, cell in READABLE.values()}
    pages |= dict.fromkeys([f"deep/{name}" for name in BROKEN] + list(LINKS) + ["blank.png", "again.png"], 1)
    pages |= {"pages.tif": 3, "broken_second_page.tif": 3, "cut_in_third_page.tif": 3}
    expected = [(path, str(number)) for path, count in pages.items() for number in range(1, count + 1)]
    assert sorted((row["path"], row["page"]) for row in night.rows) == sorted(expected)


def test_the_rows_are_sorted_by_the_code_points_of_the_path_and_by_page(night: Night) -> None:
    keys = [(unguarded(row["path"]), int(row["page"])) for row in night.rows]
    assert keys == sorted(keys)


def unguarded(cell: str) -> str:
    return cell.removeprefix("'")


@pytest.mark.parametrize(("digit", "cell"), READABLE.values(), ids=ascii)
def test_a_readable_digit_is_read_right_whoever_its_neighbours_are(digit: int, cell: str, night: Night) -> None:
    row = night.row(cell)
    assert row["status"] in ("ok", "review")
    assert row["digit"] == str(digit)
    assert (row["width"], row["height"]) == ("28", "28")


def test_a_sum_is_of_the_file_that_its_row_names(night: Night) -> None:
    for name, (_, cell) in READABLE.items():
        data = Path(os.fsdecode(os.fsencode(night.folder) + b"/" + name)).read_bytes()
        assert night.row(cell)["sha256"] == hashlib.sha256(data).hexdigest()
    for name in BROKEN.keys() - {"zero_bytes.png"}:
        assert night.row(f"deep/{name}")["sha256"] == hashlib.sha256((DATA / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "status"), BROKEN.items())
def test_a_broken_file_has_a_row_that_says_why_and_no_digit(name: str, status: str, night: Night) -> None:
    row = night.row(f"deep/{name}")
    assert row["status"] == status
    assert len(row["detail"]) > 10
    assert [row[column] for column in ("digit", "confidence", "runner_up", "final")] == [""] * 4


@pytest.mark.parametrize("ending", ["gif", "jpg", "png", "tif"])
def test_the_size_of_a_picture_that_is_too_large_stands_in_its_row(ending: str, night: Night) -> None:
    row = night.row(f"deep/bomb.{ending}")
    assert (row["width"], row["height"]) == ("60000", "60000")


@pytest.mark.parametrize("name", ["photo.heic", "scan.pdf", "drawing.svg"])
def test_a_format_that_is_not_read_says_how_to_convert_it(name: str, night: Night) -> None:
    assert re.search("convert|export|save", night.row(f"deep/{name}")["detail"], re.IGNORECASE)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_nowhere_is_unreadable(name: str, night: Night) -> None:
    row = night.row(name)
    assert (row["status"], row["sha256"]) == ("unreadable", "")
    assert row["detail"]


def test_a_blank_page_is_blank_and_a_link_to_a_neighbour_is_an_image_of_its_own(night: Night) -> None:
    assert night.row("blank.png")["status"] == "blank"
    assert {**night.row("again.png"), "path": ""} == {**night.row("0.png"), "path": ""}


def test_every_page_of_a_tiff_is_read_and_a_broken_page_spares_the_others(night: Night) -> None:
    def pages(name: str) -> list[dict[str, str]]:
        return [row for row in night.rows if row["path"] == name]

    assert [row["digit"] for row in pages("pages.tif")] == ["0", "1", "7"]
    assert [row["status"] == "unreadable" for row in pages("broken_second_page.tif")] == [False, True, False]
    assert [row["status"] == "unreadable" for row in pages("cut_in_third_page.tif")] == [False, False, True]


def test_the_reports_in_the_folder_are_no_input_and_were_replaced(night: Night) -> None:
    assert [row["path"] for row in night.rows if "report" in row["path"]] == []
    assert (night.folder / "report.csv").read_bytes().startswith(b"path,page,final,status,")
    hidden = {path.name for path in night.folder.iterdir() if path.name.startswith(".")}
    assert hidden == {".hidden.png", ".report.csv.ledger.lock"}


def test_no_cell_of_the_csv_is_a_formula_and_no_line_is_broken(night: Night) -> None:
    assert all(not row["path"].startswith(("=", "+", "-", "@", "\t", "\r")) for row in night.rows)
    text = (night.folder / "report.csv").read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r") == len(night.rows) + 1
    assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", text)
    text.decode()


def test_parquet_holds_the_same_rows(night: Night) -> None:
    table = parquet.read_table(night.folder / "report.parquet").to_pylist()
    assert [(row["path"], row["page"], row["status"]) for row in table] == [
        (unguarded(row["path"]), int(row["page"]), row["status"]) for row in night.rows
    ]
    assert [row["digit"] for row in table] == [int(row["digit"]) if row["digit"] else None for row in night.rows]


def test_the_summary_counts_what_the_report_holds(night: Night) -> None:
    summary = " ".join(night.result.stderr.split())
    statuses = [row["status"] for row in night.rows]
    count = statuses.count
    images = len({row["path"] for row in night.rows})
    failed = sum(map(count, ("unreadable", "too_large", "unsupported")))
    assert f"{images} images, {len(night.rows)} pages: {count('ok')} read, " in summary
    assert f"{count('review')} to check, {count('blank') + count('not_a_digit')} without a digit, " in summary
    assert f", {failed} failed" in summary
    skipped = re.search(r"Skipped: (.*?) Trust|Skipped: (.*?) Wrote", summary)
    assert skipped is not None
    kinds = re.findall(r"(\d+) × ", skipped[0])
    assert sum(map(int, kinds)) == len(SKIPPED) + 4  # and the two reports, the ledger and its lock


def test_nothing_but_the_summary_reaches_standard_error_neither_bars_nor_what_codecs_mutter(night: Night) -> None:
    assert "\r" not in night.result.stderr
    lines = night.result.stderr.splitlines()
    kept, summary = lines[:2], lines[2:]
    assert all("is not the work of this ledger; it is kept as report.edited-" in line for line in kept)
    assert summary[0].endswith("pages: 0 read,") or " images, " in summary[0]
    assert all(line.startswith(("Skipped: ", "Wrote ", "Next: ", "Failed: ", "  ")) for line in summary[1:])

"""The pictures that a run keeps for people, of what they may want to look at and of the audit sample."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

from batchdigits import pipeline
from batchdigits.engine import worker
from batchdigits.errors import Fault, FaultKind
from batchdigits.inference import audit
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger.database import Database
from batchdigits.preprocessing import thumbnails
from batchdigits.records import UNDRAWN
from batchdigits.reports.corrections import correct
from batchdigits.reports.rows import TO_LOOK_AT
from batchdigits.storage.local import LocalFile
from tests.pipeline.runs import by_page, rows_of, run, shown_in_csv
from tests.reports.formats.test_html import Page
from tests.sample_pages import one_of_each, write_png


def pictures_in(ledger: Path) -> list[tuple[bytes, bytes]]:
    with Database(ledger) as database:
        return database.execute("SELECT path, png FROM pages WHERE png IS NOT NULL").fetchall()


def thumbnails_in(ledger: Path) -> dict[str, bytes]:
    return {shown_in_csv(Path(os.fsdecode(path)).name): png for path, png in pictures_in(ledger)}


def test_the_ledger_keeps_pictures_of_what_people_may_want_to_look_at(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "least_passing", lambda _: 0)  # an audit sample of none
    run(surer, growing, outputs=(tmp_path / "report.csv",), target_error=0.001)
    rows = by_page((tmp_path / "report.csv").read_bytes())
    expected = {Path(path).name for (path, _), row in rows.items() if row["status"] in ("review", "blank")}
    kept = thumbnails_in(tmp_path / "report.csv.ledger")
    assert set(kept) >= expected  # and those that a stricter threshold may doubt
    assert 0 < len(expected) <= len(kept) < len(rows)
    assert {name for name, png in kept.items() if not png.startswith(b"\x89PNG")} == {
        "broken_second_page.tif"  # of a few pixels
    }


@pytest.mark.parametrize(("name", "is_drawn"), [("report.csv", False), ("page.html", True)])
def test_no_picture_is_drawn_that_nobody_could_see(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_drawn: bool
) -> None:
    png = thumbnails.png

    def noted(grey: np.ndarray, *others: Any) -> bytes:
        (tmp_path / "drawn").touch()
        return png(grey, *others)

    monkeypatch.setattr(thumbnails, "png", noted)
    run(surer, growing, outputs=(tmp_path / name,), no_ledger=True)
    assert (tmp_path / "drawn").exists() == is_drawn


@pytest.fixture
def cut_outs(tmp_path: Path) -> Path:
    """Ten digits of few pixels each."""
    for number, digit in enumerate(one_of_each()):
        write_png(tmp_path / "scans" / f"{number}.png", digit)
    return tmp_path / "scans"


def test_cut_outs_are_drawn_when_a_report_shows_them(cut_outs: Path, surer: Bundle, tmp_path: Path) -> None:
    ledger = tmp_path / "report.csv.ledger"
    run(surer, cut_outs, outputs=(tmp_path / "report.csv",))
    assert set(thumbnails_in(ledger).values()) == {UNDRAWN}
    assert not run(surer, cut_outs, outputs=(tmp_path / "report.csv",)).pending
    both = {"outputs": (tmp_path / "report.csv", tmp_path / "page.html")}
    shutil.copy(cut_outs / "0.png", tmp_path / "scans" / "copy.png")  # whose bytes are known, and undrawn
    drawn = run(surer, cut_outs, **both)
    assert (drawn.pending, drawn.faulty) == (1, 0)  # the copy alone is new
    run(surer, cut_outs, outputs=(tmp_path / "page_alone.html",))
    pages = [Page((tmp_path / name).read_bytes()) for name in ("page.html", "page_alone.html")]
    assert pages[0].pictures == pages[1].pictures
    assert all(png.startswith(b"\x89PNG") for png in thumbnails_in(ledger).values())
    assert not run(surer, cut_outs, **both).pending


def test_what_is_read_again_for_its_picture_counts_for_no_drift_and_keeps_its_row_where_that_fails(
    cut_outs: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, compared = [], pipeline._compared

    def counting(confidences: np.ndarray, *others: Any) -> Any:
        counted.append(int(confidences.sum()))
        return compared(confidences, *others)

    monkeypatch.setattr(pipeline, "_compared", counting)
    both = {"outputs": (tmp_path / "report.csv", tmp_path / "page.html")}
    run(surer, cut_outs, outputs=both["outputs"][:1])
    before = rows_of((tmp_path / "report.csv").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(FaultKind.UNREADABLE, "cannot be read: input/output error")
        patch.setattr(worker, "read_all", lambda files, *_: (fault for _ in files))
        failed = run(surer, cut_outs, **both)
    assert (failed.pending, failed.faulty, failed.deferred) == (0, 0, 10)
    assert rows_of((tmp_path / "report.csv").read_bytes()) == before
    run(surer, cut_outs, **both)
    assert b"" not in Page((tmp_path / "page.html").read_bytes()).pictures
    assert counted == [10, 0, 0]


def test_a_copy_gets_the_picture_that_its_twin_in_another_folder_lacks(
    cut_outs: Path, surer: Bundle, tmp_path: Path
) -> None:
    ledger = tmp_path / "both.ledger"
    run(surer, cut_outs, outputs=(tmp_path / "report.csv",), ledger=ledger)
    shutil.copytree(cut_outs, tmp_path / "again")
    run(surer, tmp_path / "again", outputs=(tmp_path / "page.html",), ledger=ledger)
    assert b"" not in Page((tmp_path / "page.html").read_bytes()).pictures
    assert sum(png == UNDRAWN for _, png in pictures_in(ledger)) == 10


def test_the_audit_sample_has_pictures_too_and_its_answers_are_counted(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(surer, growing, outputs=(report,))
    rows = by_page(report.read_bytes())
    assert {Path(path).name for (path, _), row in rows.items() if row["sha256"] and row["digit"]} <= set(
        thumbnails_in(tmp_path / "report.csv.ledger")
    )  # of so few files, all belong to it
    (path, page), row = next(item for item in rows.items() if item[1]["status"] == "ok")
    (path_2, page_2), row_2 = next(item for item in rows.items() if item[1]["status"] == "review")
    answers_of = [(path, page, row["sha256"], (int(row["digit"]) + 1) % 10), (path_2, page_2, row_2["sha256"], 7)]
    lines = [",".join(map(str, line)) for line in [("path", "page", "sha256", "corrected"), *answers_of]]
    (tmp_path / "answers.csv").write_text("\n".join(lines))
    correct(LocalFile(report), tmp_path / "answers.csv", ledger=None, time=datetime.now(UTC))
    again = run(surer, growing, outputs=(report,))
    assert (again.audit.answered, again.audit.wrong) == (
        1,
        1,
    )  # what was in review is no part of the sample
    assert 1 < again.audit.sample < len(rows)
    assert again.left == sum(again.rows[status] for status in TO_LOOK_AT) + again.audit.sample - 1


def test_reports_for_people_show_the_pictures_that_the_ledger_keeps_and_the_audit_sample(
    growing: Path, surer: Bundle, tmp_path: Path
) -> None:
    run(surer, growing, outputs=(tmp_path / "report.csv", tmp_path / "page.html"))
    for path in growing.rglob("*.png"):
        path.chmod(0)  # no report opens a source
    for name in ("page.html", "book.xlsx"):  # each asks for them by itself
        run(surer, growing, outputs=(tmp_path / "report.csv", tmp_path / name))
    with Database(tmp_path / "report.csv.ledger") as database:
        kept = {png for (png,) in database.execute("SELECT png FROM pages WHERE png IS NOT NULL")}
    page = Page((tmp_path / "page.html").read_bytes())
    assert set(page.pictures) - {b""} == kept
    assert {group["part"] for group in page.report["groups"]} == {"review", "no_digit", "audit"}
    review = openpyxl.load_workbook(tmp_path / "book.xlsx")["Review"]
    assert {picture._data() for picture in review._images} == kept

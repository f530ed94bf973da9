"""People's answers: final whatever happens to the model and the file's name, and gone with the file's bytes."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchdigits import pipeline
from batchdigits.errors import StorageError, UsageError
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger import answers, last_run
from batchdigits.ledger.database import Database
from batchdigits.reports.corrections import correct
from batchdigits.settings import CsvDialect, DecodingSettings, ReportSettings
from batchdigits.storage.local import LocalFile
from tests.cli_runner import CHECKOUT, Result
from tests.cli_runner import run as command_in
from tests.fake_model import bundle_in
from tests.pipeline.runs import by_page, no_model, rows_of, run
from tests.sample_pages import digits, on_page, write_png


def answer(report: Path, **digits: str) -> None:
    """Answer files of a report, by their names without the ending; all pages of each."""
    rows = rows_of(report.read_bytes())
    given = {(row["sha256"], int(row["page"])): digits.get(Path(row["path"]).stem, "") for row in rows}
    with Database(Path(f"{report}.ledger")) as database:
        answers.store_answers(database, {key: text for key, text in given.items() if text}, time="now", source="a test")


def test_an_answer_is_final_and_is_shown_without_predicting(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "a.parquet")
    run(model, growing, outputs=reports, threshold=0.0)
    before = by_page(reports[0].read_bytes())
    assert {row["corrected"] for row in before.values()} == {""}
    assert "answered" not in {row["status"] for row in before.values()}
    assert all(row["final"] == (row["digit"] if row["status"] == "ok" else "") for row in before.values())
    answer(reports[0], B="9", a="x", pages="4", blank="c", truncated="0", photo="x")
    with no_model():
        run(model, growing, outputs=reports, threshold=0.0)
    after = by_page(reports[0].read_bytes())
    changed = {key: (row["corrected"], row["final"]) for key, row in after.items() if row["corrected"]}
    assert changed == {
        ("B.png", 1): ("9", "9"),
        ("a.png", 1): ("x", ""),
        **{("a/b/pages.tif", number): ("4", "4") for number in range(1, 6)},
        ("a/blank.png", 1): ("c", ""),
        ("photo.heic", 1): ("x", ""),
        ("truncated.jpg", 1): ("0", "0"),
    }
    assert {key for key, row in after.items() if row["status"] == "answered"} == set(changed)
    theirs = {"corrected": "", "final": "", "status": ""}  # all else is the model's
    same = [{**row, **theirs} for row in after.values()]
    assert same == [{**row, **theirs} for row in before.values()]
    typed = {(row["path"], row["page"]): row for row in pq.read_table(reports[1]).to_pylist()}
    assert (typed["B.png", 1]["corrected"], typed["B.png", 1]["final"]) == ("9", 9)
    assert (typed["a.png", 1]["corrected"], typed["a.png", 1]["final"]) == ("x", None)
    times = [report.stat() for report in reports]
    run(model, growing, outputs=reports, threshold=0.0)
    assert [report.stat() for report in reports] == times
    assert not list(tmp_path.glob("*.edited-*"))


def test_below_the_threshold_nothing_is_final_but_an_answer(growing: Path, model: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,), threshold=1.0)
    answer(report, B="9")
    run(model, growing, outputs=(report,), threshold=1.0)
    rows = by_page(report.read_bytes())
    assert rows["B.png", 1]["status"] == "answered"
    assert {key: row["final"] for key, row in rows.items() if row["final"]} == {("B.png", 1): "9"}


def test_an_answer_stays_whatever_happens_to_the_model_and_the_file_s_name(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"

    def assert_answered(*names: str, model: Bundle = model, **options: Any) -> None:
        run(model, growing, outputs=(report,), **options)
        assert {path for (path, _), row in by_page(report.read_bytes()).items() if row["corrected"] == "7"} == {*names}

    run(model, growing, outputs=(report,))
    answer(report, B="7")
    assert_answered("B.png")
    assert_answered("B.png", force=True)
    assert_answered("B.png", model=bundle_in(tmp_path / "other", weights=b"another model"))
    (growing / "B.png").rename(growing / "a/moved.png")
    assert_answered("a/moved.png")
    shutil.copy(growing / "a/moved.png", growing / "copy.png")
    assert_answered("a/moved.png", "copy.png")
    for name in ("a/moved.png", "copy.png"):
        (growing / name).rename(tmp_path / Path(name).name)
    assert_answered()
    run(model, growing, outputs=(report,), force=True)
    (tmp_path / "copy.png").rename(growing / "back.png")
    assert_answered("back.png")


def test_a_file_whose_bytes_changed_loses_its_answer_with_one_message(
    growing: Path, model: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / "report.csv"
    new = growing / "new\u202e\n.png"
    write_png(new, on_page(digits(60)[58], 40, 40))
    run(model, growing, outputs=(report,))
    answer(report, **{"new\u202e\\x0a": "7"}, B="x")
    run(model, growing, outputs=(report,))
    assert caplog.messages == []
    write_png(new, on_page(digits(60)[59], 40, 40))
    for _ in range(2):
        run(model, growing, outputs=(report,))
    [message] = caplog.messages
    assert message.startswith(rf"{growing}/new\u202e\x0a.png: the answer 7 to its page 1 no longer counts")
    assert "bytes changed" in message
    rows = by_page(report.read_bytes())
    assert {path for (path, _), row in rows.items() if row["corrected"]} == {"B.png"}


def test_after_a_damaged_ledger_was_moved_away_the_answers_in_the_report_are_kept(
    growing: Path, model: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report, ledger = tmp_path / "report.csv", tmp_path / "report.csv.ledger"
    run(model, growing, outputs=(report,))
    sha256 = by_page(report.read_bytes())["a.png", 1]["sha256"]
    (tmp_path / "answers.csv").write_text(f"path,page,sha256,corrected\na.png,1,{sha256},7\n")
    correct(LocalFile(report), tmp_path / "answers.csv", ledger=None, time=datetime.now(UTC))
    run(model, growing, outputs=(report,))
    ledger.write_bytes(ledger.read_bytes()[:5000])
    with pytest.raises(StorageError, match="is damaged; move it away"):
        run(model, growing, outputs=(report,))
    ledger.rename(tmp_path / "damaged")
    run(model, growing, outputs=(report,))
    assert by_page(report.read_bytes())["a.png", 1]["corrected"] == ""
    [kept] = tmp_path.glob("*.edited-*")
    assert "is not the work of this ledger" in caplog.messages[-1]
    assert caplog.messages[-1].endswith(f"with: batchdigits correct {report} {kept}")
    correct(LocalFile(report), kept, ledger=None, time=datetime.now(UTC))
    run(model, growing, outputs=(report,))
    row = by_page(report.read_bytes())["a.png", 1]
    assert (row["corrected"], row["final"]) == ("7", "7")


# ---- the reports are made anew from what is known --------------------------------------------------------------------


def test_reports_are_made_anew_with_the_answers_just_as_the_next_run_would_make_them(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.html", tmp_path / "c.parquet")
    options: dict[str, Any] = {"threshold": 0.6, "exclude": ("many/00*",), "max_pixels": 10_000_000}
    decoding = DecodingSettings(max_pixels=options.pop("max_pixels"))
    report_settings = ReportSettings(probabilities=True, csv_dialect=CsvDialect.EXCEL_EU)
    run(model, growing, outputs=reports, decoding=decoding, report=report_settings, **options)
    ledger = tmp_path / "a.csv.ledger"
    with Database(ledger) as database:
        select = "SELECT lower(hex(substr(seen, 1, 32))) FROM pages WHERE path = ?"
        [(sha256,)] = database.execute(select, (bytes(growing / "B.png"),))
        answers.store_answers(database, {(sha256, 1): "9"}, time="now", source="a test")
    write_png(growing / "new.png", on_page(digits(60)[58], 40, 40))
    assert pipeline.remembered(ledger) == Path.cwd()
    with no_model():
        found, outputs = pipeline.renew(ledger)
    assert outputs == tuple(map(str, reports))
    assert (found.rows["answered"], found.deferred) == (1, 1)
    renewed = [report.read_bytes() for report in reports]
    assert b"new.png" not in renewed[0]
    (growing / "new.png").unlink()
    run(model, growing, outputs=reports, decoding=decoding, report=report_settings, **options)
    assert [report.read_bytes() for report in reports] == renewed
    assert not list(tmp_path.glob("*.edited-*"))


def test_reports_of_another_model_are_not_made_anew(growing: Path, tmp_path: Path) -> None:
    run(bundle_in(tmp_path / "mine"), growing, outputs=(tmp_path / "a.csv",))
    bundle_in(tmp_path / "mine", weights=b"trained again")
    with pytest.raises(UsageError, match="is another than the reports were made with"):
        pipeline.renew(tmp_path / "a.csv.ledger")


def test_a_run_that_changes_nothing_writes_nothing_into_the_ledger(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    ledger = tmp_path / "a.csv.ledger"
    run(model, growing, outputs=(tmp_path / "a.csv",))
    run(model, growing, outputs=(tmp_path / "a.csv",))
    before = ledger.read_bytes()
    last_run_before = last_run.recall(ledger)
    run(model, growing, outputs=(tmp_path / "a.csv",))
    assert (ledger.read_bytes() == before, last_run.recall(ledger)) == (True, last_run_before)
    with Database(ledger) as database:
        database.execute("UPDATE last_run SET settings = 'null'")
    assert pipeline.remembered(ledger) is None


def test_the_command_answers_any_report_of_the_run_from_any_folder_and_says_what_is_left(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "scans" / f"{number}.png", on_page(digits(60)[number], 40, 40))

    def command(*arguments: str | Path, cwd: Path = tmp_path) -> Result:
        return command_in(
            [sys.executable, "-m", "tests.fake_model_cli", *arguments], cwd=cwd, env={"PYTHONPATH": CHECKOUT}
        )

    job = ["predict", "scans", "-o", "a.csv", "-o", "b.html", "--threshold", "1", "--probabilities"]
    assert command(*job).code == 0
    (tmp_path / "answers.csv").write_text("path,corrected\n1.png,7\n2.png,x\n")
    (tmp_path / "elsewhere").mkdir()
    done = command("correct", "../b.html", "../answers.csv", cwd=tmp_path / "elsewhere")
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines()[1:] == [
        "2 answered, 1 left",
        "Wrote ../a.csv, ../b.html",
        "Next: open ../b.html (1 to look at)",
    ]
    rows = by_page((tmp_path / "a.csv").read_bytes())
    assert [rows[f"{number}.png", 1]["final"] for number in range(3)] == ["", "7", ""]
    assert "p9" in rows["1.png", 1]
    before = (tmp_path / "a.csv").read_bytes()
    assert command(*job).code == 0
    assert (tmp_path / "a.csv").read_bytes() == before

    (tmp_path / "scans").rename(tmp_path / "away")
    (tmp_path / "answers.csv").write_text("path,corrected\n0.png,1\n1.png,withdraw\n")
    late = command("correct", "a.csv", "answers.csv")
    assert late.code == 5
    assert "1 answer taken into a.csv.ledger (1 new, 0 changed, 1 withdrawn)" in late.stderr
    assert "The answers are kept, but the reports could not be made anew; run predict again. " in late.stderr
    (tmp_path / "away").rename(tmp_path / "scans")
    assert command(*job).code == 0
    rows = by_page((tmp_path / "a.csv").read_bytes())
    assert [rows[f"{number}.png", 1]["status"] for number in range(3)] == ["answered", "review", "answered"]

    assert command(*job[:4], *job[6:8]).code == 0  # b.html is named no longer
    (tmp_path / "answers.csv").write_text("path,corrected\n1.png,3\n")
    old = command("correct", "b.html", "answers.csv")
    assert old.code == 0
    assert "Warning: b.html is of an older run than the last, and stays as it is; name it in the next" in old.stderr
    assert "older run" not in command("correct", "a.csv", "answers.csv").stderr

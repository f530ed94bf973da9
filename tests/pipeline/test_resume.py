"""From run to run: what is known is read no more, and a run goes on where another broke off."""

import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import batchdigits
from batchdigits import pipeline
from batchdigits.cli.closing import closing
from batchdigits.engine import networks, pool
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger import answers
from batchdigits.ledger.database import Database
from batchdigits.ledger.ledger import LostAnswer
from batchdigits.records import InkImages, Logits
from batchdigits.reports import standing
from batchdigits.settings import ReportSettings, Runtime
from batchdigits.sources import settling
from tests.fake_model import FakePredictor, bundle_in
from tests.file_states import names, written
from tests.pipeline.runs import PAGES, by_page, interrupted, no_model, predicted, rows_of, run
from tests.sample_pages import digits, on_page, one_of_each, write_png


def test_nothing_new_needs_no_predictor_and_leaves_the_reports_untouched(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "a.parquet")
    first = run(model, growing, outputs=reports)
    before = list(map(written, reports))
    with no_model():
        again = run(model, growing, outputs=reports)
    assert list(map(written, reports)) == before
    assert (first.pending, again.pending, again.faulty) == (len(PAGES), 0, 0)
    assert again.rows == first.rows


def refuse(*_: object, **__: object) -> Any:  # noqa: ANN401
    pytest.fail("the reports are made again")


def test_nothing_new_reads_no_page_of_the_ledger_and_tells_of_the_reports_as_before(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = tuple(tmp_path / f"a.{ending}" for ending in ("csv", "parquet", "xlsx", "html"))
    first = run(model, growing, outputs=reports)
    before = list(map(written, reports))
    monkeypatch.setattr(pipeline.Ledger, "observations", refuse)
    again = run(model, growing, outputs=reports)
    assert list(map(written, reports)) == before
    assert (first.pending, again.pending, again.faulty, again.drift) == (len(PAGES), 0, 0, None)
    for name in ("rows", "verdicts", "left", "failed", "digits", "skipped", "trust"):
        assert getattr(again, name) == getattr(first, name)
    assert (again.audit.sample, again.audit.answered, again.audit.wrong) == (first.audit.sample, 0, 0)
    told = closing(replace(first, pending=0, faulty=0), ["a.csv"])
    assert closing(again, ["a.csv"]) == told.replace("Wrote a.csv", "Up to date: a.csv") != told


@pytest.mark.parametrize("output", ["a.csv", "../here/a.csv", "link.csv"])
def test_a_report_is_not_made_again_however_it_is_named(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("link.csv").symlink_to("there.csv")
    Path("there.csv").touch()
    assert [run(model, growing / "many", outputs=(output,)).is_kept for _ in range(3)] == [False, True, True]


def answered(report: Path) -> None:
    row = rows_of(report.read_bytes())[0]
    with Database(Path(f"{report}.ledger")) as database:
        answers.store_answers(database, {(row["sha256"], int(row["page"])): "9"}, time="now", source="a test")


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "a report is gone": lambda report, _: report.unlink(),
    "a report is edited": lambda report, _: report.write_bytes(report.read_bytes()[:-2]),
    "a report is another file": lambda report, _: (
        shutil.copy2(report, report.with_suffix(".copy")) and report.with_suffix(".copy").replace(report)
    ),
    "somebody has answered": lambda report, _: answered(report),
    "a file is gone": lambda _, scans: (scans / "a.png").unlink(),
    "a file is new": lambda _, scans: shutil.copy(scans / "a.png", scans / "z.png"),
    "a file has another name": lambda _, scans: (scans / "a.png").rename(scans / "z.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_reports_are_made_again_where_anything_has_changed(
    growing: Path, model: Bundle, tmp_path: Path, change: str
) -> None:
    report = tmp_path / "a.csv"
    run(model, growing, outputs=(report,))
    run(model, growing, outputs=(report,))
    CHANGES[change](report, growing)
    run(model, growing, outputs=(report,))
    expected = predicted(model, growing, outputs=("-",), ledger=tmp_path / "a.csv.ledger")
    assert report.read_bytes() == expected
    if change != "somebody has answered":
        assert expected == predicted(model, growing)


def test_a_program_that_somebody_works_on_makes_the_reports_again(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, report = tmp_path / "package" / "reports" / "rows.py", tmp_path / "a.csv"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(batchdigits, "__file__", str(tmp_path / "package" / "__init__.py"))

    def is_kept_by(text: str) -> bool:
        source.write_text(text)
        standing._program.cache_clear()
        return run(model, growing / "many", outputs=(report,)).is_kept

    assert [is_kept_by(text) for text in ("one", "other")] == [False, False]
    standing._program.cache_clear()
    assert run(model, growing / "many", outputs=(report,)).is_kept
    monkeypatch.undo()
    standing._program.cache_clear()


def test_other_settings_make_the_reports_again(growing: Path, model: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "a.csv"
    run(model, growing, outputs=(report,))
    for options in ({"threshold": 1.0}, {"exclude": ("many",)}, {"report": ReportSettings(probabilities=True)}):
        run(model, growing, outputs=(report,), **options)
        assert report.read_bytes() == predicted(model, growing, **options)


def test_a_report_in_the_scanned_folder_is_no_input_and_the_second_run_says_the_same(
    tmp_path: Path, model: Bundle
) -> None:
    write_png(tmp_path / "a.png", one_of_each()[0])
    outputs = (tmp_path / "report.csv", tmp_path / "report.parquet")
    first = run(model, tmp_path, outputs=outputs)
    before = [output.read_bytes() for output in outputs]
    second = run(model, tmp_path, outputs=outputs)
    assert first.files == second.files == 1
    assert [output.read_bytes() for output in outputs] == before
    assert [row["path"] for row in rows_of(before[0])] == ["a.png"]


def test_a_new_threshold_renders_the_report_anew_without_predicting(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    with no_model():
        run(model, growing, outputs=(report,), threshold=1.0)
    assert report.read_bytes() == predicted(model, growing, threshold=1.0)


def test_a_touched_file_is_no_damage_where_failed_ones_are_tried_again(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    before = report.read_bytes()
    for file in growing.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    assert run(model, growing, outputs=(report,), retry_failed=True).pending
    assert report.read_bytes() == before


def test_a_report_that_was_edited_as_the_run_ended_is_made_again_and_the_edit_kept(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    remember = pipeline.last_run.remember

    def edited(*arguments: Any) -> None:
        report.write_text("mine\n")
        remember(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.last_run, "remember", edited)
        run(model, growing, outputs=(report,))
    run(model, growing, outputs=(report,))
    assert len(rows_of(report.read_bytes())) == sum(PAGES.values())
    assert [path.read_text() for path in tmp_path.glob("report.edited-*")] == ["mine\n"]


def test_a_new_target_error_renders_the_report_anew_without_predicting(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    first = run(surer, growing, outputs=(report,))
    assert (first.trust.threshold, first.trust.target_error) == (0.9, 0.005)
    with no_model():
        stricter = run(surer, growing, outputs=(report,), target_error=0.001)
    assert (stricter.trust.threshold, stricter.trust.target_error) == (0.99, 0.001)
    assert report.read_bytes() == predicted(surer, growing, threshold=0.99) != predicted(surer, growing)
    assert run(surer, growing, threshold=0.5).trust.promised is None


def test_a_folder_that_changes_is_reported_as_if_it_were_read_anew(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"

    def assert_as_if_new(pending: int) -> None:
        assert run(model, growing, outputs=(report,)).pending == pending
        assert report.read_bytes() == predicted(model, growing)

    assert_as_if_new(len(PAGES))
    write_png(growing / "new.png", on_page(digits(60)[59], 40, 40))
    shutil.copy(growing / "a.png", growing / "copy.png")
    assert_as_if_new(2)
    (growing / "B.png").unlink()
    write_png(growing / "a.png", on_page(digits(60)[58], 41, 40))
    assert_as_if_new(1)
    (growing / "é.png").touch()
    (growing / "truncated.jpg").rename(growing / "moved.jpg")
    assert_as_if_new(2)


@pytest.mark.parametrize("batches_before", [0, 1, 2, 3])
def test_a_run_that_broke_off_goes_on_where_it_stopped(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_before: int
) -> None:
    report = tmp_path / "report.csv"
    record, seen = pipeline.Ledger.record, []

    def breaks_off(*args: Any) -> list[LostAnswer]:
        if len(seen) == batches_before:
            raise KeyboardInterrupt
        seen.append(len(args[1].files))
        return record(*args)

    monkeypatch.setattr(pipeline.Ledger, "record", breaks_off)
    monkeypatch.setattr(pool, "_CHUNK_FILES", 7)
    monkeypatch.setattr(pool, "_BATCH_PAGES", 7)
    with pytest.raises(KeyboardInterrupt):
        run(model, growing, outputs=(report,))
    assert not report.exists()
    monkeypatch.setattr(pipeline.Ledger, "record", record)
    resumed = run(model, growing, outputs=(report,))
    assert resumed.pending == len(PAGES) - sum(seen)
    assert report.read_bytes() == predicted(model, growing)


def test_bytes_that_are_known_under_another_name_are_not_predicted_again(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    for name in ("a.png", "a/b/pages.tif"):
        (growing / "renamed").mkdir(exist_ok=True)
        shutil.copy(growing / name, growing / "renamed")
    (growing / "B.png").rename(growing / "C.png")
    with monkeypatch.context() as patch:
        patch.setattr(networks, "Predictor", None)  # so that whoever asks it meets an error
        assert run(model, growing, outputs=(report,)).pending == 3
    assert report.read_bytes() == predicted(model, growing)


@pytest.mark.parametrize("workers", [1, 3])
def test_copies_within_a_run_are_predicted_once_and_have_the_row_that_each_has_alone(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    class Counting(FakePredictor):
        def __call__(self, pixels: InkImages) -> Logits:
            with count.get_lock():
                count.value += len(pixels)
            return super().__call__(pixels)

    count = multiprocessing.get_context("fork").Value("i", 0)
    monkeypatch.setattr(networks, "Predictor", Counting)
    monkeypatch.setattr(pool, "_CHUNK_FILES", 7)
    monkeypatch.setattr(pool, "_BATCH_PAGES", 16)
    shutil.copytree(growing / "many", tmp_path / "scans" / "0")
    alone = by_page(predicted(model, tmp_path / "scans", workers=1))
    assert count.value == len(alone) == 40
    for number in range(1, 10):
        shutil.copytree(growing / "many", tmp_path / "scans" / f"{number}")
    report = tmp_path / "report.csv"
    run(model, tmp_path / "scans", outputs=(report,), workers=workers)
    assert by_page(report.read_bytes()) == {
        (f"{number}{path[1:]}", page): row | {"path": f"{number}{path[1:]}"}
        for number in range(10)
        for (path, page), row in alone.items()
    }
    assert workers > 1 or count.value == 2 * len(alone)


def test_another_runtime_reads_nothing_anew_where_the_bundle_proves_both_to_be_one_function(
    mixed: Path, model: Bundle, tmp_path: Path
) -> None:
    exported = bundle_in(tmp_path / "exported", exported=b"the same", exported_finder=b"the same")
    for bundle, pending in ((exported, 0), (model, 40)):
        report = tmp_path / f"{pending}.csv"
        assert run(bundle, mixed / "many", outputs=(report,), runtime=Runtime.KERAS).pending == 40
        assert run(bundle, mixed / "many", outputs=(report,), runtime=Runtime.LITERT).pending == pending


@pytest.mark.parametrize("year", [1902, 2400])
def test_a_file_of_another_century_is_read_once(tmp_path: Path, model: Bundle, year: int) -> None:
    image = write_png(tmp_path / "in" / "a.png", one_of_each()[0])
    subprocess.run(["touch", "-d", f"{year}-01-01", image], check=True)
    report = tmp_path / "report.csv"
    assert run(model, tmp_path / "in", outputs=(report,), settle_seconds=2.0).rows.total() == 1
    assert run(model, tmp_path / "in", outputs=(report,), settle_seconds=2.0).pending == 0


def test_names_as_long_as_allowed_are_no_trouble(tmp_path: Path, model: Bundle) -> None:
    folder = tmp_path / ("f" * 255)
    write_png(folder / ("i" * 251 + ".png"), one_of_each()[0])
    report = tmp_path / ("r" * 251 + ".csv")
    other = tmp_path / ("r" * 250 + "s.csv")
    for output in (report, other):
        run(model, folder, outputs=(output,))
        assert run(model, folder, outputs=(output,)).pending == 0
    assert report.read_bytes() == other.read_bytes() == predicted(model, folder)
    assert sum(name.endswith(".ledger") for name in names(tmp_path)) == 2


# ---- faults --------------------------------------------------------------------------------------------------------


def test_faults_are_new_once_and_again_when_the_file_changes_or_they_are_asked_for(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    (growing / "nowhere.png").symlink_to("missing")  # cannot be opened, so that it is tried in every run
    assert run(model, growing, outputs=(report,)).faulty == 6
    again = run(model, growing, outputs=(report,))
    assert (again.pending, again.faulty) == (1, 0)
    (growing / "zero_bytes.png").write_bytes(b"\0")
    assert run(model, growing, outputs=(report,)).faulty == 1
    assert run(model, growing, outputs=(report,), retry_failed=True).faulty == 6
    assert run(model, growing, outputs=(report,)).faulty == 0


def test_a_fault_that_is_deferred_is_told_when_it_is_read(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    (growing / "zero_bytes.png").write_bytes(b"\0")
    with monkeypatch.context() as patch:
        patch.setattr(settling, "has_changed", lambda *_, **__: True)
        deferred = run(model, growing, outputs=(report,), settle_seconds=0.01)
    assert (deferred.deferred, deferred.faulty) == (1, 0)
    assert run(model, growing, outputs=(report,)).faulty == 1


def test_the_faults_of_a_run_that_was_killed_are_new_to_the_next(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.publish, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, growing, outputs=(report,))
    resumed = run(model, growing, outputs=(report,))
    assert (resumed.pending, resumed.faulty) == (0, 5)


def test_where_files_are_read_again_the_run_says_why(
    growing: Path, model: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run(model, growing, outputs=(tmp_path / "r.csv",))
    run(model, growing, outputs=(tmp_path / "r.csv",))
    assert caplog.messages == []
    run(model, growing, outputs=(tmp_path / "r.csv",), runtime=Runtime.LITERT)
    assert caplog.messages == [
        "52 images that did not change are read again: they were read with the runtime keras, and this is litert "
        "(--runtime keras spares it)."
    ]
    run(bundle_in(tmp_path / "b", weights=b"x"), growing, outputs=(tmp_path / "r.csv",), runtime=Runtime.LITERT)
    assert caplog.messages[1:] == [
        "52 images that did not change are read again: they were read by another model or version, or under other "
        "limits."
    ]

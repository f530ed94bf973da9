"""What reports are replaced: edited ones are kept, those of other sources stay, and which ledger knows of them."""

from pathlib import Path
from typing import Any

import pytest

from batchdigits import pipeline
from batchdigits.errors import UsageError
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger.location import held
from batchdigits.reports.publish import ENDINGS
from tests.file_states import names
from tests.pipeline.runs import interrupted, predicted, reports_in, run


def test_edited_reports_of_all_formats_are_kept_and_the_run_goes_on(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    reports = tuple(tmp_path / f"{name}{ending}" for name, ending in zip("abcd", ENDINGS, strict=True))
    run(model, growing, outputs=reports)
    published = [report.read_bytes() for report in reports]
    edited = [data + b"\r\n" for data in published]
    for report, data in zip(reports, edited, strict=True):
        report.write_bytes(data)
    run(model, growing, outputs=reports)
    assert [report.read_bytes() for report in reports] == published
    assert published[0] == predicted(model, growing)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.edited-*"))] == edited


def test_a_report_of_other_sources_is_replaced_only_when_it_is_asked_for(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing / "many", outputs=(report,))
    before = report.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "discover", interrupted)  # it is said before any work
        with pytest.raises(UsageError, match="--overwrite"):
            run(model, growing, outputs=(report,))
    assert report.read_bytes() == before
    run(model, growing, outputs=(report,), overwrite=True)
    assert report.read_bytes() == predicted(model, growing)
    assert reports_in(tmp_path) == ["growing", "report.csv"]


def test_without_a_ledger_a_report_that_may_be_edited_is_kept_unless_it_may_be_overwritten(
    growing: Path, model: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,), no_ledger=True)
    run(model, growing, outputs=(report,), no_ledger=True)  # it is what it would be
    assert (reports_in(tmp_path), caplog.messages) == (["growing", "report.csv"], [])
    report.write_text("edited")
    run(model, growing, outputs=(report,), no_ledger=True)
    assert [path.read_text() for path in tmp_path.glob("*.edited-*")] == ["edited"]
    assert "without a ledger nobody knows (--overwrite replaces it)" in caplog.messages[-1]
    assert "batchdigits correct" not in caplog.messages[-1]
    report.write_text("edited again")
    run(model, growing, outputs=(report,), no_ledger=True, overwrite=True)
    assert len([*tmp_path.glob("*.edited-*")]) == len(caplog.messages) == 1
    assert report.read_bytes() == predicted(model, growing)


@pytest.mark.parametrize("how", [{"no_ledger": True}, {"ledger": "another"}])
def test_a_run_without_the_ledger_beside_a_report_heeds_what_that_knows_of_it(
    growing: Path, model: Bundle, tmp_path: Path, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    if "ledger" in how:
        how = {"ledger": tmp_path / "another"}
    report, ledger = tmp_path / "report.csv", tmp_path / "report.csv.ledger"
    run(model, growing, outputs=(report,))
    before = ledger.read_bytes()
    (growing / "B.png").unlink()
    run(model, growing, outputs=(report,), **how)  # it stands as it was published: nothing is lost
    assert (list(tmp_path.glob("*.edited-*")), caplog.messages) == ([], [])
    assert report.read_bytes() == predicted(model, growing)
    (tmp_path / "another").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="was made from other sources"):
        run(model, growing / "many", outputs=(report,), **how)
    report.write_text("edited")
    run(model, growing, outputs=(report,), **how)
    assert [path.read_text() for path in tmp_path.glob("*.edited-*")] == ["edited"]
    assert ledger.read_bytes() == before


def test_reports_in_another_order_do_not_begin_a_new_ledger(growing: Path, model: Bundle, tmp_path: Path) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.parquet")
    run(model, growing, outputs=reports)
    with pytest.raises(UsageError, match=r"The ledger of these reports is .*/a\.csv\.ledger; name the report"):
        run(model, growing, outputs=reports[::-1])
    assert run(model, growing, outputs=reports[::-1], ledger=tmp_path / "a.csv.ledger").pending == 0
    assert [name for name in names(tmp_path) if name.endswith(".ledger")] == ["a.csv.ledger"]


def test_a_report_without_the_first_of_its_run_does_not_begin_a_new_ledger(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.parquet")
    run(model, growing, outputs=reports)
    before = reports[1].read_bytes()
    with pytest.raises(UsageError, match=r"The ledger of these reports is .*/a\.csv\.ledger; name the report"):
        run(model, growing, outputs=reports[1:])
    assert reports[1].read_bytes() == before
    assert [name for name in names(tmp_path) if name.endswith(".ledger")] == ["a.csv.ledger"]
    (tmp_path / "a.csv.ledger").rename(tmp_path / "moved.ledger")  # as a damaged one is moved away
    assert run(model, growing, outputs=reports[1:]).pending > 0


def test_a_ledger_that_is_not_to_be_used_stops_no_run(growing: Path, model: Bundle, tmp_path: Path) -> None:
    report, ledger = tmp_path / "report.csv", tmp_path / "report.csv.ledger"
    for damage in (b"damaged" * 500, b""):
        ledger.write_bytes(damage)
        run(model, growing, outputs=(report,), no_ledger=True)
        assert ledger.read_bytes() == damage
    with held(ledger, wait_seconds=0):
        run(model, growing, outputs=(report,), no_ledger=True)
    assert report.read_bytes() == predicted(model, growing)


def test_the_ledger_beside_a_link_to_a_report_is_heeded_too(growing: Path, model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "night.csv").touch()
    (tmp_path / "report.csv").symlink_to("real/night.csv")
    run(model, growing, outputs=(tmp_path / "report.csv",))
    with pytest.raises(UsageError, match="was made from other sources"):
        run(model, growing / "many", outputs=(tmp_path / "report.csv",), no_ledger=True)

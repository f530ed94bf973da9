"""Publication: what people did to a report is kept, whatever happens, and other people's reports are not replaced."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from batchdigits.errors import UsageError
from batchdigits.ledger.ledger import Ledger
from batchdigits.reports.backup import Replacing, check_sources, published_reports
from batchdigits.storage import local
from batchdigits.storage.atomic import atomic_write_all
from batchdigits.storage.local import LocalFile, file_sha256
from batchdigits.storage.urls import locate
from tests.file_states import names
from tests.ledger.test_ledger import ledger_at


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.csv"


def publish(ledger: Ledger, report: Path, text: str, *sources: str) -> None:
    places, names = [LocalFile(report)], [locate(source) for source in sources or ("scans",)]
    with atomic_write_all(places, keeper=Replacing(published_reports(ledger, places), names)) as [handle]:
        handle.write(text.encode())


def check(ledger: Ledger, reports: list[Path], sources: Sequence[str]) -> None:
    places = [LocalFile(report) for report in reports]
    check_sources(published_reports(ledger, places), places, [locate(source) for source in sources])


def kept(report: Path) -> list[Path]:
    return sorted(report.parent.glob("*.edited-*"))


def test_a_report_that_stands_as_it_was_published_is_replaced(report: Path) -> None:
    with ledger_at() as ledger:
        for text in ("first", "second", "third"):
            publish(ledger, report, text)
    assert (report.read_text(), names(report.parent)) == ("third", ["report.csv"])


def test_a_report_that_was_edited_is_kept_under_another_name_and_that_is_said(
    report: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("first, and what a person knows")
        edited = file_sha256(report)
        assert caplog.messages == []
        publish(ledger, report, "second")
        assert report.read_text() == "second"
        assert kept(report) == [report.with_name(f"report.edited-{edited[:8]}.csv")]
        assert kept(report)[0].read_text() == "first, and what a person knows"
        [said] = caplog.messages
        assert str(report) in said
        assert kept(report)[0].name in said
        publish(ledger, report, "third")
    assert len(kept(report)) == 1


def test_every_edit_is_kept(report: Path) -> None:
    with ledger_at() as ledger:
        for number in range(3):
            publish(ledger, report, f"published {number}")
            report.write_text(f"edited {number}")
        publish(ledger, report, "in the end")
    assert {path.read_text() for path in kept(report)} == {"edited 0", "edited 1", "edited 2"}


def test_an_edited_report_is_left_where_nothing_new_would_replace_it_with_itself(report: Path) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("second")
        publish(ledger, report, "second")  # what a person made of it is what it would be
        publish(ledger, report, "third")
    assert (report.read_text(), kept(report)) == ("third", [])


def test_a_file_that_the_ledger_did_not_publish_is_somebodys(report: Path) -> None:
    report.write_text("notes")
    with ledger_at() as ledger:
        publish(ledger, report, "first")
    assert [path.read_text() for path in kept(report)] == ["notes"]


@pytest.mark.parametrize("when", ["before it is told", "before the rename", "after the rename"])
def test_a_run_that_is_killed_while_it_publishes_makes_no_edit_of_it(
    report: Path, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with ledger_at(path) as ledger:
        publish(ledger, report, "first")

    def second() -> None:
        with ledger_at(path) as ledger, pytest.MonkeyPatch.context() as patch:
            if when == "before it is told":
                patch.setattr(Ledger, "publish", killed)
            if when == "before the rename":
                patch.setattr(local, "put_in_place", killed)
            publish(ledger, report, "second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second()
    assert report.read_text() == ("second" if when == "after the rename" else "first")
    with ledger_at(path) as ledger:
        publish(ledger, report, "second, again")
    assert (report.read_text(), kept(report)) == ("second, again", [])


def test_an_edit_that_a_killed_run_had_not_yet_kept_is_kept_by_the_next(report: Path, tmp_path: Path) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("edited")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "hardlink_to", killed)
            with pytest.raises(KeyboardInterrupt):
                publish(ledger, report, "second")
        assert report.read_text() == "edited"
        publish(ledger, report, "second")
    assert [path.read_text() for path in kept(report)] == ["edited"]


def test_where_no_second_name_can_be_given_an_edit_is_renamed(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("edited")
        publish(ledger, report, "second")
    assert (report.read_text(), [path.read_text() for path in kept(report)]) == ("second", ["edited"])


def test_until_the_new_report_stands_the_edited_one_does(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("edited")
        monkeypatch.setattr(local, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(ledger, report, "second")
    assert report.read_text() == "edited"


def test_through_a_link_the_report_itself_is_kept(report: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "night.csv").touch()
    report.symlink_to("real/night.csv")
    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("edited")
        publish(ledger, report, "second")
    assert report.is_symlink()
    assert {path.read_text() for path in kept(tmp_path / "real" / "night.csv")} == {"", "edited"}


def test_the_name_of_an_edited_report_is_never_too_long(tmp_path: Path) -> None:
    report = tmp_path / ("é" * 125 + ".csv")
    with ledger_at() as ledger:
        publish(ledger, report, "first")
        report.write_text("edited")
        publish(ledger, report, "second")
    assert [path.read_text() for path in kept(report)] == ["edited"]


# ---- other sources ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now"),
    [(["a"], ["b"]), (["a"], ["a", "b"]), (["a", "b"], ["a"]), (["a/*.png"], ["a"]), (["a"], ["../a"])],
)
def test_a_report_of_other_sources_is_not_replaced(report: Path, before: list[str], now: list[str]) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "first", *before)
        with pytest.raises(UsageError, match=r"report\.csv was made from other sources: .*/a.* --overwrite"):
            check(ledger, [report], now)


@pytest.mark.parametrize(
    ("before", "now"),
    [(["a"], ["a/"]), (["a"], ["./a"]), (["a", "b"], ["b", "a", "a"]), (["a"], ["{here}/a"]), (["\udcff"], ["\udcff"])],
)
def test_the_same_sources_are_the_same_however_they_are_named(report: Path, before: list[str], now: list[str]) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "first", *before)
        check(ledger, [report], [name.replace("{here}", str(Path.cwd())) for name in now])


@pytest.mark.parametrize("happens", [Path.unlink, lambda report: report.rename(report.with_name("moved.csv"))])
def test_a_report_that_is_gone_is_nobodys(report: Path, happens: Callable[[Path], object]) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "first", "a")
        happens(report)
        check(ledger, [report], ["b"])
        publish(ledger, report, "second", "b")
        check(ledger, [report], ["b"])


def test_of_two_reports_each_has_its_own_sources(report: Path) -> None:
    other = report.with_name("other.csv")
    with ledger_at() as ledger:
        publish(ledger, report, "first", "a")
        publish(ledger, other, "first", "b")
        check(ledger, [other], ["b"])
        with pytest.raises(UsageError, match=r"report\.csv was made"):
            check(ledger, [report, other], ["b"])


def test_a_report_that_says_the_same_of_other_sources_is_of_those_now(report: Path) -> None:
    with ledger_at() as ledger:
        publish(ledger, report, "the same", "a")
        publish(ledger, report, "the same", "b")
        check(ledger, [report], ["b"])

"""Which ledger a report belongs to: each of a run's reports leads to the run's, by whatever name, also when moved."""

import shutil
import sys
from pathlib import Path

import pytest

from batchdigits.ledger.answers import answered, has_answers
from batchdigits.ledger.location import beside
from batchdigits.ledger.location import ledger_of as ledger_of_target
from batchdigits.storage.remote import target_file
from tests.cli_runner import CHECKOUT, batchdigits, run
from tests.ledger.test_ledger import ledger_at
from tests.sample_pages import one_of_each, write_png


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for number in (1, 4, 7):
        write_png(folder / f"{number}.png", 255 - one_of_each()[number])
    return folder


def ledger_of(report: Path) -> Path:
    return ledger_of_target(target_file(str(report)))


def predict(scans: Path, *options: str | Path) -> None:
    command = [sys.executable, "-m", "tests.fake_model_cli", "predict", scans, *options]
    found = run(command, cwd=scans.parent, env={"PYTHONPATH": CHECKOUT})
    assert found.code == 0, found.stderr


def answer(report: Path) -> Path:
    """Write an answer to the first row of a CSV report."""
    header, first, *_ = report.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    answers = report.with_name("answers.csv")
    answers.write_text(f"path,page,sha256,corrected\n{cells['path']},1,{cells['sha256']},5\n")
    return answers


@pytest.mark.parametrize(
    ("report", "ledger"),
    [
        ("report.xlsx", None),
        ("review.html", "known.ledger"),
        ("report.parquet", "state.db"),
        ("report.csv", "State"),
    ],
)
def test_any_report_of_a_run_leads_to_its_ledger(report: str, ledger: str | None, scans: Path, tmp_path: Path) -> None:
    named = ["--ledger", ledger] if ledger else []
    predict(scans, "-o", "report.csv", "-o", "review.html", "-o", "report.xlsx", "-o", "report.parquet", *named)
    place = tmp_path / (ledger or "report.csv.ledger")
    assert ledger_of(tmp_path / report) == place
    assert has_answers(tmp_path / report)

    answers = answer(tmp_path / "report.csv")
    elsewhere = shutil.move(tmp_path, tmp_path.with_name(tmp_path.name + " moved"))
    with (Path(elsewhere) / report).open("ab") as file:  # somebody edits it
        file.write(b"\n")
    found = batchdigits("correct", report, answers.name, cwd=elsewhere)
    assert found.stderr.startswith(f"1 answer taken into {place.name} (1 new"), found.stderr
    assert len(answered(Path(elsewhere) / report)) == 1
    shutil.move(elsewhere, tmp_path)


def test_an_answer_to_scans_that_were_moved_leads_to_where_they_are(scans: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    predict(scans, "-o", report)
    assert batchdigits("correct", report.name, answer(report).name, cwd=tmp_path).code == 0
    moved = scans.rename(tmp_path / "taken away")
    predict(moved, "-o", report, "--overwrite")
    [page] = answered(report)
    assert Path(page.path).parent == moved


def test_each_report_leads_to_its_own_run(scans: Path, tmp_path: Path) -> None:
    predict(scans, "-o", "a.csv", "-o", "a.xlsx")
    predict(scans, "-o", "b.csv", "-o", "b.xlsx")
    for name in "ab":
        for ending in ("csv", "xlsx"):
            assert ledger_of(tmp_path / f"{name}.{ending}") == tmp_path / f"{name}.csv.ledger"


def test_a_report_that_another_run_has_replaced_leads_there(scans: Path, tmp_path: Path) -> None:
    predict(scans, "-o", "report.xlsx")
    assert ledger_of(tmp_path / "report.xlsx") == tmp_path / "report.xlsx.ledger"
    write_png(scans / "0.png", 255 - one_of_each()[0])
    predict(scans, "-o", "report.csv", "-o", "report.xlsx", "--ledger", "new.ledger")
    assert ledger_of(tmp_path / "report.xlsx") == tmp_path / "new.ledger"


def test_a_link_to_a_report_leads_to_the_ledger_of_what_it_points_to(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    predict(scans, "-o", "out/report.csv", "-o", "out/report.xlsx")
    (tmp_path / "today.xlsx").symlink_to("out/report.xlsx")
    assert ledger_of(tmp_path / "today.xlsx") == tmp_path / "out" / "report.csv.ledger"


def test_a_url_leads_to_the_ledger_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first, second = target_file("s3://bucket/report.csv"), target_file("s3://bucket/report.xlsx")
    beside(first).parent.mkdir()
    with ledger_at(beside(first)) as ledger:
        for report in (first, second):
            ledger.publish(report, "ab" * 32, ("s3://bucket/scans/",), replaced="")
    assert ledger_of_target(first) == ledger_of_target(second) == beside(first)


def test_where_no_ledger_knows_a_report_it_is_the_one_that_is_called_after_it(scans: Path, tmp_path: Path) -> None:
    predict(scans, "-o", "report.csv")
    (tmp_path / "Notes").write_text("no ledger")
    assert ledger_of(tmp_path / "other.csv") == tmp_path / "other.csv.ledger"
    assert ledger_of(tmp_path / "missing" / "report.csv") == tmp_path / "missing" / "report.csv.ledger"
    assert not has_answers(tmp_path / "other.csv")

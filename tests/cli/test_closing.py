"""The words at the end of a run: what was found, written and failed, and what to do next, at 80 columns."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchdigits.cli.closing import closing, corrected
from batchdigits.inference.audit import Audit
from batchdigits.inference.trust import Basis, Trust
from batchdigits.monitoring import Summary
from tests.cli_runner import batchdigits, environment, on_a_terminal
from tests.sample_pages import one_of_each, write_png

DATA = Path(__file__).parents[1] / "data"
NIGHT = Summary(
    files=3000,
    pending=3000,
    deferred=0,
    rows=Counter(ok=2931, review=34, blank=20, not_a_digit=6, unreadable=7, unsupported=2),
    verdicts=Counter(),
    left=60,
    failed=[("a.pdf", "unsupported"), ("b.png", "unreadable")],
    digits=Counter(),
    audit=Audit(),
    skipped=Counter(),
    faulty=9,
    model="a" * 64,
    trust=Trust(
        0.86, Basis.VALIDATION, 0.005, "photo", None, None, answers=0, wrong=0, passed=0, drifted=False, missing=()
    ),
    drift=None,
    seconds={"list": 0.5, "decode": 1.0},
    elapsed=1.25,
)
FINE = replace(NIGHT, rows=Counter(ok=3000), left=0, failed=[], faulty=0)


def said(summary: Summary, *outputs: str, **options: Any) -> list[str]:
    return closing(summary, outputs, **options).splitlines()


def test_the_end_of_a_run_says_what_was_found_what_was_written_what_to_do_next_and_what_failed() -> None:
    assert said(NIGHT, "report.csv", "report.html") == [
        "3,000 images: 2,931 read, 34 to check, 26 without a digit, 9 failed",
        "Wrote report.csv, report.html",
        "Next: open report.html (60 to look at)",
        "Failed: a.pdf (unsupported), b.png (unreadable) and 7 more, see column detail",
    ]


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    assert said(FINE, "report.csv") == ["3,000 images: 3,000 read", "Wrote report.csv"]
    assert said(FINE, "-") == ["3,000 images: 3,000 read"]
    again = replace(FINE, pending=0, is_kept=True)
    assert said(again, "r.csv") == ["3,000 images, 0 of them new or changed: 3,000 read", "Up to date: r.csv"]
    assert said(replace(FINE, files=0, pending=0, rows=Counter())) == ["0 images: 0 read"]


def test_answered_rows_are_counted_as_answered() -> None:
    rows = Counter(ok=2931, answered=50, review=19)
    assert said(replace(FINE, rows=rows, left=19), "r.csv")[0] == "3,000 images: 2,931 read, 50 answered, 19 to check"


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["a.csv", "b.XLSX", "c.html"], "open c.html (60 to look at)"),
        (["a.csv", "b.XLSX"], "open b.XLSX, sheet Review (60 to look at)"),
        (["a.csv"], "add -o report.html to check what is doubtful (60 to look at)"),
        (["-"], "add -o report.html to check what is doubtful (60 to look at)"),
    ],
)
def test_the_next_thing_to_do_is_to_open_the_report_that_shows_pictures(outputs: list[str], words: str) -> None:
    [line] = [line for line in said(NIGHT, *outputs) if line.startswith("Next: ")]
    assert line == f"Next: {words}"


def test_the_audit_sample_is_told_apart_from_what_is_doubtful() -> None:
    assert said(replace(NIGHT, left=260), "r.html")[2] == "Next: open r.html (60 to look at, 200 to audit)"
    assert said(replace(FINE, left=200), "r.html")[2] == "Next: open r.html (200 to audit)"


def test_answers_are_counted_beside_what_is_left_and_the_audit_sample_apart() -> None:
    rows = Counter(ok=2931, answered=5, review=7)
    assert corrected(replace(FINE, rows=rows, left=61), ["r.csv"]).splitlines()[0] == "5 answered, 7 left, 54 to audit"
    assert corrected(replace(FINE, rows=rows, left=7), ["r.csv"]).splitlines()[0] == "5 answered, 7 left"


def test_pages_new_images_and_what_has_no_row_are_told_where_there_are_any() -> None:
    night = replace(
        FINE, files=2, pending=1, rows=Counter(ok=5), deferred=1, skipped=Counter({"not an image": 3, "hidden": 2})
    )
    assert said(night) == [
        "2 images, 5 pages, 1 of them new or changed: 5 read",
        "Left to the next run: 1 image that may still be being written",
        "Skipped: 3 × not an image, 2 × hidden",
    ]


def test_of_faults_that_a_report_has_shown_before_the_new_ones_are_told_apart() -> None:
    night = replace(NIGHT, rows=Counter(ok=2991, unreadable=9))
    assert said(replace(night, faulty=2))[0] == "3,000 images: 2,991 read, 9 failed (2 of them new)"
    assert said(replace(night, faulty=0))[0] == "3,000 images: 2,991 read, 9 failed"


def test_what_ok_is_worth_is_told_once_there_is_an_estimate_or_an_answer() -> None:
    for told in ({"expected": 0.002}, {"passed": 200, "wrong": 3}):
        trust = replace(FINE.trust, **told)
        [line] = [line for line in closing(replace(FINE, trust=trust), []).split("\n") if line.startswith("Trust: ")]
        assert line.startswith("Trust: target error 0.50%")
        assert trust.words() in " ".join(closing(replace(FINE, trust=trust), []).split())


def test_times_and_what_ok_is_worth_are_for_those_who_ask() -> None:
    assert said(FINE, verbose=True)[1:] == [
        "Trust: target error 0.50% (proven for scans like those that were tested; the",
        "  hardest kind was «photo»)",
        "Time: 1.2 seconds, 2,400 images/s; at work: list 40%, decode 80%",
    ]


def test_a_run_with_nothing_new_tells_no_rate() -> None:
    assert said(replace(FINE, pending=0), verbose=True)[-1] == "Time: 1.2 seconds; at work: list 40%, decode 80%"


def test_no_line_is_longer_than_a_terminal_of_80_columns_unless_a_name_is() -> None:
    night = replace(
        NIGHT,
        rows=NIGHT.rows + Counter(answered=1_234_567),
        failed=[("scans/" + "a" * 200 + ".png", "unreadable"), (("some words " * 20) + ".png", "too_large")],
        skipped=Counter({f"some reason number {number}": 10 for number in range(12)}),
        audit=Audit(200, 200, 3),
    )
    lines = said(night, *(f"folder/report-{number}.csv" for number in range(9)), verbose=True)
    assert max(map(len, lines)) <= 79
    assert any(line.startswith("  ") for line in lines)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digit, an empty page and a broken file."""
    folder = tmp_path_factory.mktemp("closing") / "scans"
    write_png(folder / "7.png", one_of_each()[7])
    write_png(folder / "blank.png", one_of_each()[0] * 0 + 255)
    shutil.copy(DATA / "truncated.png", folder)
    return folder


def test_a_scheduler_mails_the_same_lines_that_a_terminal_shows(scans: Path, tmp_path: Path) -> None:
    job = ["predict", scans, "-o", tmp_path / "report.html", "--runtime", "litert", "--force"]
    mailed = batchdigits(*job, "-q")
    assert mailed.code == 3
    assert len(mailed.stderr.splitlines()) >= 4
    shown = on_a_terminal(*job).stderr
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(shown)
    assert not colour.search(mailed.stderr)
    assert colour.sub("", shown).replace("\r\n", "\n").endswith(mailed.stderr)


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(changes: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "\x1b[1;31mError:\x1b[0m " in on_a_terminal("explain", tmp_path / "missing.png").stderr
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert environment()[next(iter(changes))]
    assert on_a_terminal("explain", tmp_path / "missing.png").stderr.startswith("Error: ")


def test_an_error_begins_with_what_it_is(tmp_path: Path) -> None:
    for command in (["predict", "missing"], ["explain", "missing.png"], ["predict", ".", "-o", "report.doc"]):
        assert batchdigits(*command, cwd=tmp_path).stderr.startswith("Error: ")

"""The dry run: it says what a run would do, and leaves everything as it is."""

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest

from batchdigits import pipeline
from batchdigits.engine import local, networks
from batchdigits.errors import Locked, NoImages, UsageError
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger.location import held
from batchdigits.settings import PredictSettings
from tests.fake_model import FakePredictor, bundle_in
from tests.ledger.test_database import leave_a_hot_journal, made_by_version
from tests.sample_pages import digits, write_png


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "can_fork", lambda: True)
    monkeypatch.setattr(networks, "Predictor", FakePredictor)


@pytest.fixture
def model(tmp_path: Path) -> Bundle:
    return bundle_in(tmp_path / "bundle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png", "in/c.png", "same.png")):
        old(write_png(tmp_path / "scans" / name, digits(60)[number]))
    (tmp_path / "scans" / "notes.txt").write_text("no image")
    return tmp_path / "scans"


def old(path: Path, age: float = 100.0) -> Path:
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def settings_of(folder: Path, model: Bundle, **options: Any) -> PredictSettings:
    report = str(folder.with_name("report.csv"))
    return PredictSettings(sources=(str(folder),), **{"outputs": (report,), "model": model.directory, **options})


def told(folder: Path, model: Bundle, **options: Any) -> tuple[list[tuple[str, ...]], str]:
    """What a dry run says: its lines without the folder, and its summary."""
    stdout = io.BytesIO()
    line = pipeline.preview(settings_of(folder, model, **options), stdout=stdout)
    text = stdout.getvalue().decode().replace(f"{folder}/", "")
    return [tuple(line.split("\t")) for line in text.splitlines()], line


def run(folder: Path, model: Bundle, **options: Any) -> None:
    pipeline.run(settings_of(folder, model, **options), stdout=io.BytesIO())


def everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that stands in a folder: sizes, times and bytes, of folders too."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


def test_before_the_first_run_everything_is_new_and_nothing_is_written(folder: Path, model: Bundle) -> None:
    before = everything(folder.parent)
    lines, line = told(folder, model)
    assert lines == [
        ("new", "a.png", ""),
        ("new", "b.png", ""),
        ("new", "in/c.png", ""),
        ("new", "same.png", ""),
        ("skipped", "notes.txt", "not an image"),
    ]
    assert line.startswith("dry run: 4 images found, 0 known, 4 new, 0 changed, 0 read again, 0 deferred, 1 skipped")
    assert everything(folder.parent) == before


def test_after_a_run_it_tells_what_is_new_changed_and_known_and_leaves_ledger_and_report(
    folder: Path, model: Bundle
) -> None:
    run(folder, model)
    old(write_png(folder / "a.png", digits(60)[20]), 50)
    old(write_png(folder / "d.png", digits(60)[21]))
    write_png(folder / "young.png", digits(60)[22])
    before = everything(folder.parent)
    lines, line = told(folder, model, exclude=("same.png",))
    assert lines == [
        ("changed", "a.png", "its size, time or inode is another one"),
        ("new", "d.png", ""),
        (
            "deferred",
            "young.png",
            "it was changed just now: the run waits for it, and leaves it to the next one if it still changes",
        ),
        ("skipped", "notes.txt", "not an image"),
        ("skipped", "same.png", "left out by --include or --exclude"),
    ]
    assert "5 images found, 2 known, 1 new, 1 changed, 0 read again, 1 deferred, 2 skipped" in line
    assert everything(folder.parent) == before


def test_what_it_says_is_what_the_run_does(folder: Path, model: Bundle) -> None:
    run(folder, model)
    old(write_png(folder / "new.png", digits(60)[20]))
    (folder / "b.png").unlink()
    said = sum(what in ("new", "changed", "read again") for what, *_ in told(folder, model)[0])
    assert pipeline.run(settings_of(folder, model), stdout=io.BytesIO()).pending == said == 1
    assert [what for what, *_ in told(folder, model)[0]] == ["skipped"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"force": True}, "--force or --retry-failed asks for it"),
        ({"other_model": True}, "it was read with another model, version or limit"),
    ],
)
def test_it_says_why_something_is_read_again(
    folder: Path, model: Bundle, tmp_path: Path, options: dict[str, bool], why: str
) -> None:
    run(folder, model)
    if options.pop("other_model", False):
        model = bundle_in(tmp_path / "other", weights=b"others")
    lines, _ = told(folder, model, **options)
    assert lines[:4] == [("read again", name, why) for name in ("a.png", "b.png", "in/c.png", "same.png")]


def test_a_ledger_of_an_older_version_is_looked_at_and_left(folder: Path, model: Bundle) -> None:
    made_by_version(1, folder.with_name("report.csv.ledger"))
    before = everything(folder.parent)
    assert [what for what, *_ in told(folder, model)[0]] == ["new"] * 4 + ["skipped"]
    assert everything(folder.parent) == before


def test_a_ledger_that_a_killed_run_left_half_written_is_looked_at_and_left(folder: Path, model: Bundle) -> None:
    run(folder, model)
    ledger = folder.with_name("report.csv.ledger")
    leave_a_hot_journal(ledger)
    before = everything(folder.parent)
    assert [what for what, *_ in told(folder, model)[0]] == ["skipped"]  # all is known, for nothing was committed
    assert everything(folder.parent) == before


def test_names_of_any_bytes_give_a_line_each(tmp_path: Path, model: Bundle) -> None:
    for name in ("a\tb.png", "line\nbreak.png", "caf\udce9.png"):
        old(write_png(tmp_path / "scans" / name, digits(60)[0]))
    lines, _ = told(tmp_path / "scans", model)
    assert [name for _, name, _ in lines] == [r"a\x09b.png", r"caf\xe9.png", r"line\x0abreak.png"]


def test_it_ends_as_the_run_would(folder: Path, model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImages):
        told(tmp_path / "empty", model)
    run(folder, model)
    with pytest.raises(UsageError, match="made from other sources"):
        told(folder / "in", model, outputs=(str(tmp_path / "report.csv"),))
    with held(tmp_path / "report.csv.ledger", wait_seconds=0), pytest.raises(Locked, match=f"pid {os.getpid()} on"):
        told(folder, model)


def test_it_looks_at_no_ledger_where_none_is_wanted(folder: Path, model: Bundle) -> None:
    run(folder, model)
    assert [what for what, *_ in told(folder, model, no_ledger=True)[0]] == ["new"] * 4 + ["skipped"]


def test_a_reader_that_leaves_early_is_no_trouble(folder: Path, model: Bundle) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        line = pipeline.preview(settings_of(folder, model), stdout=stdout)
    assert "4 images found" in line

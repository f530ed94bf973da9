"""The pipeline: files in, a row a page out, the same bytes however the work is cut. A stand-in predicts."""

import csv
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchdigits import pipeline
from batchdigits.engine import ink, local, pool
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.run_context import Stop
from batchdigits.errors import BundleError, Fault, FaultKind, NoImages, StorageError, Terminated, UsageError
from batchdigits.inference import audit, bundle, drift
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.calibration import Calibration
from batchdigits.inference.decisions import decide, probabilities
from batchdigits.ledger import answers
from batchdigits.ledger.database import Database
from batchdigits.ledger.location import held
from batchdigits.ledger.writer import LostAnswer
from batchdigits.monitoring import Summary
from batchdigits.preprocessing import thumbnails
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import Batch, ImageFile, InkImages, Logits
from batchdigits.reports.corrections import correct
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings, ReportSettings
from batchdigits.sources import settling
from batchdigits.storage import reading
from batchdigits.storage.local import LocalFile, file_sha256
from batchdigits.storage.reading import read_remote
from tests.digits import digits, on_page, one_of_each, write_png, write_tiff
from tests.disks import names, written
from tests.reports.formats.test_html import Page
from tests.standins import RISKS, StandIn, StandInFinder, bundle_in, decoding_threads, logits_of

DATA = Path(__file__).parent / "data"
FINDER = StandInFinder(Path())

PAGES = {
    "=1+1.png": 1,
    "B.png": 1,
    "a/b/pages.tif": 5,
    "a/blank.png": 1,
    "a/bomb.png": 1,
    "a/broken_second_page.tif": 3,
    "a.png": 1,
    "a b\n.png": 1,
    "photo.heic": 1,
    "truncated.jpg": 1,
    "zero_bytes.png": 1,
    "é.png": 1,
    **{f"many/{number:03}.png": 1 for number in range(40)},
}
"""What is in the folder of these tests, and how many pages."""


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Predictor", StandIn)
    monkeypatch.setattr(ink, "InkFinder", StandInFinder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


@pytest.fixture(scope="module")
def surer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that is sure enough of some images for a target error of 0.1%, of others for 0.5%, and of some not."""
    return bundle_in(tmp_path_factory.mktemp("surer") / "bundle", temperature=0.5)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of file; no test writes into it."""
    folder = tmp_path_factory.mktemp("mixed") / "scans"
    for number, name in enumerate(name for name in PAGES if name.endswith(".png")):
        write_png(folder / name, on_page(digits(60)[number], 40 + number % 7, 36))
    write_png(folder / "a/blank.png", np.full((30, 30), 255, np.uint8))
    write_tiff(folder / "a/b/pages.tif", [on_page(digit, 40, 50) for digit in digits(60)[50:55]])
    for name in ("bomb.png", "broken_second_page.tif"):
        shutil.copy(DATA / name, folder / "a" / name)
    for name in ("photo.heic", "truncated.jpg", "zero_bytes.png"):
        shutil.copy(DATA / name, folder / name)
    for name in ("notes.txt", "a/.hidden.png", "Thumbs.db"):
        (folder / name).write_text("no image")
    return folder


def predicted(model: Bundle, *sources: Path | str, outputs: tuple[Path | str, ...] = ("-",), **options: Any) -> bytes:
    stdout = io.BytesIO()
    run(model, *sources, outputs=outputs, stdout=stdout, **options)
    return stdout.getvalue()


def run(
    model: Bundle,
    *sources: Path | str,
    outputs: tuple[Path | str, ...] = ("-",),
    stdout: io.BytesIO | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Summary:
    chosen = PredictSettings(
        sources=tuple(str(source) for source in sources),
        outputs=tuple(str(output) for output in outputs),
        **{"model": model.directory, "settle_seconds": 0.0, **options},
    )
    return pipeline.run(chosen, stdout=stdout or io.BytesIO(), stop=stop)


def reports_in(folder: Path) -> list[str]:
    """The names in a folder, but for the ledger and its lock."""
    return [name for name in names(folder) if not name.endswith((".ledger", ".lock"))]


def rows_of(report: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(report.decode(), newline="")))


def by_page(report: bytes) -> dict[tuple[str, int], dict[str, str]]:
    return {(row["path"], int(row["page"])): row for row in rows_of(report)}


def shown_in_csv(name: str) -> str:
    escaped = name.replace("\n", r"\x0a")
    return f"'{escaped}" if escaped.startswith("=") else escaped


# ---- rows --------------------------------------------------------------------------------------------------------


def test_every_page_of_every_image_has_one_row_in_order(mixed: Path, model: Bundle) -> None:
    expected = sorted(
        (name.replace("\n", r"\x0a"), number) for name, count in PAGES.items() for number in range(1, count + 1)
    )
    found = [(row["path"].removeprefix("'"), int(row["page"])) for row in rows_of(predicted(model, mixed))]
    assert found == expected


def test_a_row_says_what_its_own_page_says_alone(mixed: Path, model: Bundle, tmp_path: Path) -> None:
    whole = by_page(predicted(model, mixed))
    for name in PAGES:
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        (tmp_path / "one" / name).parent.mkdir(parents=True)
        shutil.copy(mixed / name, tmp_path / "one" / name)
        alone = rows_of(predicted(model, tmp_path / "one"))
        assert alone == [whole[shown_in_csv(name), number] for number in range(1, PAGES[name] + 1)]


def test_digit_and_confidence_are_those_of_the_pixels(mixed: Path, model: Bundle) -> None:
    rows = by_page(predicted(model, mixed))
    pages = [on_page(digit, 40, 50) for digit in digits(60)[50:55]]
    seen = normalise(pages, FINDER)
    decided = decide(logits_of(seen.pixels), seen.ink, threshold=0.9, temperature=20.0)
    for number in range(5):
        row = rows["a/b/pages.tif", number + 1]
        assert row["status"] == decided.status[number]
        assert int(row["digit"]) == decided.digit[number]
        assert float(row["confidence"]) == decided.confidence[number]
        assert (row["width"], row["height"]) == ("50", "40")
        assert (row["corrected"], row["final"]) == ("", "") or row["final"] == row["digit"]
        assert row["model"] == model.id[:12]


def test_every_kind_of_fault_has_its_row_and_its_cells_are_empty(mixed: Path, model: Bundle) -> None:
    rows = by_page(predicted(model, mixed))
    expected = {
        ("a/bomb.png", 1): FaultKind.TOO_LARGE,
        ("a/broken_second_page.tif", 2): FaultKind.UNREADABLE,
        ("photo.heic", 1): FaultKind.UNSUPPORTED,
        ("truncated.jpg", 1): FaultKind.UNREADABLE,
        ("zero_bytes.png", 1): FaultKind.UNREADABLE,
    }
    assert set(expected.values()) == set(FaultKind)
    for key, row in rows.items():
        if key in expected:
            assert row["status"] == expected[key]
            assert row["detail"]
            assert row["digit"] == row["confidence"] == row["runner_up"] == row["runner_up_confidence"] == ""
        else:
            assert row["status"] in {"ok", "review", "blank"}
    assert rows["a/blank.png", 1]["status"] == "blank"
    assert rows["a/bomb.png", 1]["width"] == rows["a/bomb.png", 1]["height"] == "60000"
    assert rows["zero_bytes.png", 1]["width"] == ""


def test_the_summary_counts_what_the_report_holds(mixed: Path, model: Bundle) -> None:
    stdout = io.BytesIO()
    summary = run(model, mixed, stdout=stdout)
    statuses = [row["status"] for row in rows_of(stdout.getvalue())]
    assert summary.files == len(PAGES)
    assert dict(summary.rows) == {status: statuses.count(status) for status in statuses}
    assert summary.faulty == sum(status in list(FaultKind) for status in statuses) == 5
    assert summary.skipped == {"not an image": 1, "hidden or system file": 2}
    assert list(summary.seconds) == [
        "list",
        "decode",
        "normalise",
        "load model",
        "predict",
        "decide",
        "record",
        "report",
    ]
    assert 0 < max(summary.seconds["list"], summary.seconds["record"]) < summary.elapsed


@pytest.mark.parametrize("count", [1, 5])
def test_a_folder_of_nothing_but_broken_files_has_a_row_for_each(tmp_path: Path, model: Bundle, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(b"")
    rows = rows_of(predicted(model, tmp_path, report=ReportSettings(probabilities=True)))
    assert [(row["path"], row["status"]) for row in rows] == [(f"{n}.png", "unreadable") for n in range(count)]
    assert all(row["digit"] == row["p0"] == "" for row in rows)


def test_a_folder_of_nothing_but_blank_pages_has_a_row_for_each(tmp_path: Path, model: Bundle) -> None:
    for number in range(3):
        write_png(tmp_path / f"{number}.png", np.full((20, 20), 255, np.uint8))
    assert [row["status"] for row in rows_of(predicted(model, tmp_path))] == ["blank"] * 3


# ---- the same bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_a_report_does_not_hang_on_batches_or_workers(
    mixed: Path, model: Bundle, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted(model, mixed)
    monkeypatch.setattr(pool, "_CHUNK_FILES", 5)
    wide = ReportSettings(probabilities=True)
    assert predicted(model, mixed, batch_size=batch_size, workers=workers) == expected
    assert predicted(model, mixed, batch_size=batch_size, workers=workers, report=wide) == predicted(
        model, mixed, report=wide
    )


@pytest.mark.parametrize(("limit", "processes"), [(0.001, True), (1.0, False)])
def test_processes_do_much_work_and_threads_little(
    mixed: Path, model: Bundle, limit: float, processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted(model, mixed)
    made = []

    class Noted(pool.Workers):
        def __init__(self, count: int, finder: SharedFinder, *, processes: bool) -> None:
            made.append((count, processes))
            super().__init__(count, finder, processes=processes)

    monkeypatch.setattr(local, "Workers", Noted)
    monkeypatch.setattr(pool, "_SECONDS_FOR_PROCESSES", limit)
    assert predicted(model, mixed, workers=3) == expected
    assert made == [(3, processes)]


def test_parquet_does_not_hang_on_batches_or_workers_either(mixed: Path, model: Bundle, tmp_path: Path) -> None:
    for batch_size, workers in ((256, 1), (3, 3)):
        report = tmp_path / f"{batch_size}.parquet"
        run(model, mixed, outputs=(report,), batch_size=batch_size, workers=workers)
    assert (tmp_path / "3.parquet").read_bytes() == (tmp_path / "256.parquet").read_bytes()


def test_the_order_in_which_the_disk_lists_does_not_matter(
    mixed: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted(model, mixed)
    discover = pipeline.discover
    monkeypatch.setattr(pipeline, "discover", lambda *args, **kw: reversed(list(discover(*args, **kw))))
    assert predicted(model, mixed) == expected


def test_reports_of_all_formats_agree(mixed: Path, model: Bundle, tmp_path: Path) -> None:
    outputs = (tmp_path / "a.csv", tmp_path / "b.parquet", "-")
    stdout = predicted(model, mixed, outputs=outputs)
    assert (tmp_path / "a.csv").read_bytes() == stdout == predicted(model, mixed)
    table = pq.read_table(tmp_path / "b.parquet").to_pylist()
    rows = rows_of(stdout)
    assert len(table) == len(rows) == sum(PAGES.values())
    for typed, row in zip(table, rows, strict=True):
        assert typed["path"] == row["path"].removeprefix("'")
        assert (typed["page"], typed["status"]) == (int(row["page"]), row["status"])
        for column in ("digit", "confidence", "runner_up", "width", "height"):
            found = None if row[column] == "" else float(row[column])
            assert typed[column] == found or abs(typed[column] - found) < 1e-6
        assert reports_in(tmp_path) == ["a.csv", "b.parquet"]


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["digit", "pages", "blank", "broken"]), max_size=14), batch_size=st.integers(1, 9)
)
def test_any_mixture_of_files_gives_a_row_a_page(
    tmp_path_factory: pytest.TempPathFactory, model: Bundle, kinds: list[str], batch_size: int
) -> None:
    folder = tmp_path_factory.mktemp("mixture")
    expected = []
    for number, kind in enumerate(kinds):
        path = folder / f"{number:02}.{'tif' if kind == 'pages' else 'png'}"
        if kind == "pages":
            write_tiff(path, list(digits(60)[number : number + 3]))
        elif kind == "broken":
            path.write_bytes(b"broken")
        else:
            write_png(path, digits(60)[number] if kind == "digit" else np.zeros((9, 9), np.uint8))
        expected += [(path.name, str(page + 1)) for page in range(3 if kind == "pages" else 1)]
    rows = rows_of(predicted(model, folder, batch_size=batch_size, allow_empty=True))
    assert [(row["path"], row["page"]) for row in rows] == expected


# ---- what the settings change ------------------------------------------------------------------------------------


def test_the_threshold_moves_rows_between_ok_and_review_and_nothing_else(mixed: Path, model: Bundle) -> None:
    low, high = (rows_of(predicted(model, mixed, threshold=threshold)) for threshold in (0.0, 1.0))
    assert {row["status"] for row in low} == {"ok", "blank", *FaultKind}
    assert "review" in {row["status"] for row in high}
    assert [row["digit"] for row in low] == [row["digit"] for row in high]
    assert [row["confidence"] for row in low] == [row["confidence"] for row in high]


def test_the_limit_of_pixels_is_heeded(tmp_path: Path, model: Bundle) -> None:
    write_png(tmp_path / "a.png", on_page(one_of_each()[2]))
    (row,) = rows_of(predicted(model, tmp_path, decoding=DecodingSettings(max_pixels=100)))
    assert (row["status"], row["width"], row["height"]) == ("too_large", "56", "56")


def test_pixels_are_normalised_as_the_model_was_trained(tmp_path: Path, model: Bundle) -> None:
    page = on_page(one_of_each()[2])
    write_png(tmp_path / "in" / "a.png", page)
    directory = shutil.copytree(model.directory, tmp_path / "other")
    calibration = Calibration(temperature=300.0, gate=1.0, risks=RISKS)
    other = bundle.save(
        directory, normalisation=NormalisationSettings(digit_side=12), calibration=calibration, provenance={}
    )
    (row,) = rows_of(predicted(other, tmp_path / "in", report=ReportSettings(probabilities=True)))
    pixels = normalise([page], FINDER, other.normalisation).pixels
    expected = probabilities(logits_of(pixels), temperature=300.0)[0]
    assert [float(row[f"p{digit}"]) for digit in range(10)] == pytest.approx(expected, abs=0.5001e-4)
    assert row["model"] == other.id[:12] != model.id[:12]


def test_parquet_tells_under_what_it_was_made(mixed: Path, model: Bundle, tmp_path: Path) -> None:
    limits = DecodingSettings(max_pixels=5000, max_bytes=6000)
    run(model, mixed, outputs=(tmp_path / "a.parquet",), threshold=0.75, decoding=limits)
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    expected = {
        "model": model.id,
        "temperature": "20.0",
        "gate": "1.0",
        "threshold": "0.75",
        "max_pixels": "5000",
        "max_bytes": "6000",
    }
    assert {name: metadata[f"batchdigits.{name}".encode()].decode() for name in expected} == expected


def test_a_file_that_two_sources_reach_gives_one_row(mixed: Path, model: Bundle) -> None:
    rows = rows_of(predicted(model, mixed / "a.png", mixed, mixed / "a"))
    assert len(rows) == sum(PAGES.values())
    assert sum(row["path"].endswith("/a.png") for row in rows) == 1


# ---- what ends a run -----------------------------------------------------------------------------------------------


def test_a_folder_without_images_ends_the_run_and_leaves_the_report(tmp_path: Path, model: Bundle) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no image")
    report = tmp_path / "report.csv"
    report.write_text("last night")
    with pytest.raises(NoImages, match=r"1 × not an image.*\.png.*stay as they are"):
        run(model, tmp_path / "in", outputs=(report,))
    assert report.read_text() == "last night"


def test_an_empty_report_is_written_where_that_is_allowed(tmp_path: Path, model: Bundle) -> None:
    (tmp_path / "in").mkdir()
    outputs = (tmp_path / "a.csv", tmp_path / "a.parquet")
    summary = run(model, tmp_path / "in", outputs=outputs, allow_empty=True)
    assert (summary.files, summary.rows.total()) == (0, 0)
    assert (tmp_path / "a.csv").read_bytes().startswith(b"path,page,status,")
    assert rows_of((tmp_path / "a.csv").read_bytes()) == []
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_what_may_be_missed_in_the_report_is_named_once_for_all_of_a_kind(
    tmp_path: Path, model: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    scans = tmp_path / "scans"
    write_png(scans / "a.png", one_of_each()[0])
    write_png(scans / "IMG_0001.png", one_of_each()[1]).rename(scans / "IMG_0001")
    write_png(tmp_path / "nas" / "b.png", one_of_each()[2])
    for number in range(1200):
        shutil.copy(scans / "a.png", scans / f"{number:04}.dat")
    for name in ("2024", "2025"):
        (scans / name).symlink_to(tmp_path / "nas")
    assert [row["path"] for row in rows_of(predicted(model, scans))] == ["IMG_0001", "a.png"]
    images, links = sorted(record.getMessage() for record in caplog.records)
    assert "an image by its first bytes" in images
    assert f": {scans}/0000.dat, {scans}/0001.dat, {scans}/0002.dat and 1,197 more; rename" in images
    assert "symbolic link to a folder" in links
    assert f": {scans}/2024, {scans}/2025; give" in links
    caplog.clear()
    predicted(model, scans, exclude=("*.dat", "202?/"))
    assert not caplog.records


def test_an_output_that_is_an_input_ends_the_run_and_leaves_the_image(tmp_path: Path, model: Bundle) -> None:
    image = write_png(tmp_path / "in" / "a.png", one_of_each()[0])
    before = image.read_bytes()
    (tmp_path / "report.csv").hardlink_to(image)
    with pytest.raises(UsageError, match=r"overwrite the input image"):
        run(model, tmp_path / "in", outputs=(tmp_path / "report.csv",))
    with pytest.raises(UsageError):
        run(model, image, outputs=(image,))
    assert image.read_bytes() == before
    assert names(tmp_path / "in") == ["a.png"]


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


class _FailsMidway(StandIn):
    """Predicts two batches and then no more."""

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        super().__init__(bundle, **options)
        self._left = 2

    def __call__(self, pixels: InkImages) -> Logits:
        self._left -= 1
        if self._left < 0:
            message = "out of memory"
            raise ArithmeticError(message)
        return super().__call__(pixels)


def _interrupted(*_: object, **__: object) -> Any:  # noqa: ANN401
    raise KeyboardInterrupt


def _gives_no_number(self: StandIn, pixels: InkImages) -> Logits:
    return np.full((len(pixels), 10), np.nan, np.float32)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda patch: patch.setattr(pipeline, "Predictor", _FailsMidway), ArithmeticError),
        (lambda patch: patch.setattr(StandIn, "__call__", _gives_no_number), BundleError),
        (lambda patch: patch.setattr(pool, "observe", _interrupted), KeyboardInterrupt),
        (lambda patch: patch.setattr(pipeline.Ledger, "record", _interrupted), KeyboardInterrupt),
    ],
)
def test_nothing_is_published_when_a_run_fails_midway(
    mixed: Path,
    model: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
    error: type[BaseException],
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "a.parquet")
    for report in reports:
        report.write_text("last night")
    stdout = io.BytesIO()
    break_it(monkeypatch)
    with pytest.raises(error):
        run(model, mixed, outputs=(*reports, "-"), stdout=stdout, batch_size=5)
    assert [report.read_text() for report in reports] == ["last night"] * 2
    assert reports_in(tmp_path) == ["a.csv", "a.parquet"]
    assert rows_of(stdout.getvalue() or b"path\r\n") == []


def test_a_failed_run_leaves_no_worker_behind(mixed: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Predictor", _FailsMidway)
    try:
        run(model, mixed, batch_size=1)
    except ArithmeticError:
        pass
    else:
        pytest.fail("it did not fail")
    assert decoding_threads() == []


def test_what_is_wrong_with_the_command_is_said_before_any_work(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.BackgroundPredictor, "start", _interrupted)
    monkeypatch.setattr(pool, "observe", _interrupted)
    with pytest.raises(UsageError, match="ending"):
        run(model, mixed, outputs=(tmp_path / "report.doc",))
    with pytest.raises(StorageError, match="does not exist"):
        run(model, tmp_path / "nowhere", outputs=(tmp_path / "report.csv",))
    with pytest.raises(BundleError, match="nowhere"):
        run(replace(model, directory=tmp_path / "nowhere"), mixed)
    assert set(names(tmp_path)) <= {".report.csv.ledger.lock"}


def test_a_run_with_the_stand_in_loads_no_tensorflow(mixed: Path, model: Bundle) -> None:
    loaded = "tensorflow" in sys.modules  # by another test, perhaps
    predicted(model, mixed)
    assert ("tensorflow" in sys.modules) == loaded


def test_no_progress_is_shown_unless_it_is_asked_for(
    mixed: Path, model: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    predicted(model, mixed / "many")
    assert capfd.readouterr() == ("", "")
    predicted(model, mixed / "many", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "40/40" in err


# ---- from run to run -----------------------------------------------------------------------------------------------


@contextmanager
def no_model() -> Iterator[None]:
    """See to it that no model begins to be loaded."""

    def refuse(_: object) -> None:
        message = "nothing is new, so no model is needed"
        raise AssertionError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.BackgroundPredictor, "start", refuse)
        yield


@pytest.fixture
def growing(mixed: Path, tmp_path: Path) -> Path:
    """A copy of the mixed folder that a test may change."""
    return Path(shutil.copytree(mixed, tmp_path / "growing"))


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


def test_a_new_threshold_renders_the_report_anew_without_predicting(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    with no_model():
        run(model, growing, outputs=(report,), threshold=1.0)
    assert report.read_bytes() == predicted(model, growing, threshold=1.0)


def test_a_new_target_error_renders_the_report_anew_without_predicting(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    first = run(surer, growing, outputs=(report,))
    assert (first.threshold, first.target_error) == (0.9, 0.005)
    with no_model():
        stricter = run(surer, growing, outputs=(report,), target_error=0.001)
    assert (stricter.threshold, stricter.target_error) == (0.99, 0.001)
    assert report.read_bytes() == predicted(surer, growing, threshold=0.99) != predicted(surer, growing)
    assert run(surer, growing, threshold=0.5).target_error is None


def test_a_target_that_the_model_cannot_prove_ends_the_run_before_any_work(
    growing: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "discover", _interrupted)
    calibration = replace(model.calibration, risks=RISKS[:1])
    monkeypatch.setattr(bundle, "load", lambda _: replace(model, calibration=calibration))
    with pytest.raises(UsageError, match=r"cannot prove the target error 0\.05%: .* it takes about 5,990"):
        run(model, growing, target_error=0.0005)


def thumbnails_in(ledger: Path) -> dict[str, bytes]:
    with Database(ledger) as database:
        select = "SELECT path, png FROM thumbnails JOIN files USING (observation)"
        return {shown_in_csv(Path(os.fsdecode(path)).name): png for path, png in database.execute(select)}


def test_the_ledger_keeps_pictures_of_what_people_may_want_to_look_at(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "least_passing", lambda _: 0)  # an audit sample of none
    run(surer, growing, outputs=(tmp_path / "report.csv",), target_error=0.001)
    rows = by_page((tmp_path / "report.csv").read_bytes())
    expected = {Path(path).name for (path, _), row in rows.items() if row["status"] in ("review", "blank")}
    kept = thumbnails_in(tmp_path / "report.csv.ledger")
    assert set(kept) == expected
    assert 0 < len(expected) < len(rows)
    assert all(png.startswith(b"\x89PNG") for png in kept.values())


@pytest.mark.parametrize(("name", "is_drawn"), [("report.csv", False), ("page.html", True)])
def test_no_picture_is_drawn_that_nobody_could_see(
    growing: Path, surer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_drawn: bool
) -> None:
    drawn: list[bytes] = []

    def png(grey: np.ndarray) -> bytes:
        drawn.append(thumbnails.png(grey))
        return drawn[-1]

    monkeypatch.setattr(local, "thumbnails", SimpleNamespace(png=png))
    run(surer, growing, outputs=(tmp_path / name,), no_ledger=True)
    assert bool(drawn) == is_drawn


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
    assert f", 1 of the {again.audit.sample} pages to audit answered; " in again.line()


def test_reports_for_people_show_the_pictures_that_the_ledger_keeps_and_the_audit_sample(
    growing: Path, surer: Bundle, tmp_path: Path
) -> None:
    run(surer, growing, outputs=(tmp_path / "report.csv",))
    for path in growing.rglob("*.png"):
        path.chmod(0)  # no report opens a source
    for name in ("page.html", "book.xlsx"):  # each asks for them by itself
        run(surer, growing, outputs=(tmp_path / "report.csv", tmp_path / name))
    with Database(tmp_path / "report.csv.ledger") as database:
        kept = {png for (png,) in database.execute("SELECT png FROM thumbnails")}
    page = Page((tmp_path / "page.html").read_bytes())
    assert set(page.pictures) - {b""} == kept
    assert {group["part"] for group in page.report["groups"]} == {"review", "no_digit", "audit"}
    review = openpyxl.load_workbook(tmp_path / "book.xlsx")["Review"]
    assert {picture._data() for picture in review._images} == kept


def test_a_run_whose_confidences_have_drifted_says_so(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "in" / "a.png", on_page(one_of_each()[2]))
    monkeypatch.setattr(drift, "LEAST_ROWS", 1)
    for reference, told in (((1,) * 10, True), ((), False)):
        calibration = replace(model.calibration, reference=reference)
        monkeypatch.setattr(bundle, "load", lambda _, made=calibration: replace(model, calibration=made))
        caplog.clear()
        found = run(model, tmp_path / "in").drift
        assert (found is not None, any("distributed otherwise" in said for said in caplog.messages)) == (told, told)


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


def test_files_of_one_size_and_time_that_change_names_or_bytes_do_not_keep_their_digits(
    tmp_path: Path, model: Bundle
) -> None:
    scans, report = tmp_path / "scans", tmp_path / "report.csv"
    scans.mkdir()
    pages = {digit: Image.fromarray(on_page(one_of_each()[digit])) for digit in (3, 7)}
    first, second, aside = (scans / f"{name}.bmp" for name in ("first", "second", "aside"))

    def reported() -> list[str]:
        for path in (first, second):
            os.utime(path, ns=(10**18, 10**18))
        run(model, scans, outputs=(report,))
        assert report.read_bytes() == predicted(model, scans, no_ledger=True)
        return [row["digit"] for row in rows_of(report.read_bytes())]

    pages[3].save(first)
    pages[7].save(second)
    before = reported()
    assert len(set(before)) == 2
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert reported() == before[::-1]
    pages[3].save(first)
    assert reported() == [before[0]] * 2


@pytest.mark.parametrize("batches_before", [0, 1, 3, 6])
def test_a_run_that_broke_off_goes_on_where_it_stopped(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_before: int
) -> None:
    report = tmp_path / "report.csv"
    record, seen = pipeline.Ledger.record, []

    def breaks_off(*args: Any) -> list[LostAnswer]:
        if len(seen) == batches_before:
            raise KeyboardInterrupt
        seen.append(len(args[1].pages))
        return record(*args)

    monkeypatch.setattr(pipeline.Ledger, "record", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        run(model, growing, outputs=(report,), batch_size=7)
    assert not report.exists()
    monkeypatch.setattr(pipeline.Ledger, "record", record)
    resumed = run(model, growing, outputs=(report,), batch_size=7)
    assert resumed.pending <= len(PAGES) - sum(seen) + 2 * bool(seen)  # pages of a file that was not whole
    assert report.read_bytes() == predicted(model, growing)


# ---- while a folder is read ----------------------------------------------------------------------------------------


def aged(folder: Path, seconds: float = 100.0) -> None:
    """Let all files of a folder be that old."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def during_prediction(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen when the first batch has been read and is predicted."""

    class Interrupting(StandIn):
        def __call__(self, pixels: InkImages) -> Logits:
            if not done:
                done.append(happens())
            return super().__call__(pixels)

    done: list[object] = []
    monkeypatch.setattr(pipeline, "Predictor", Interrupting)
    monkeypatch.setattr(pool, "_CHUNK_FILES", 1)


def test_files_that_are_still_being_written_keep_their_last_row_or_wait_for_the_next_run(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    aged(growing)
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,), settle_seconds=2.0)
    before = by_page(report.read_bytes())
    for name in ("B.png", "new.png"):
        write_png(growing / name, on_page(digits(60)[59], 40, 40))
    writing = [open(growing / name, "ab") for name in ("B.png", "new.png")]  # noqa: SIM115, PTH123
    write_png(growing / "young.png", on_page(digits(60)[58], 40, 40))

    def write_on() -> None:
        while writing:
            for file in list(writing):
                file.write(b"more")
                file.flush()
            time.sleep(0.02)

    writer = threading.Thread(target=write_on)
    writer.start()
    summary = run(model, growing, outputs=(report,), settle_seconds=0.5)
    files, writing = writing, []
    writer.join()
    for file in files:
        file.close()
    rows = by_page(report.read_bytes())
    assert summary.deferred == 2
    assert rows["B.png", 1] == before["B.png", 1]
    assert ("new.png", 1) not in rows
    assert rows["young.png", 1]["sha256"]
    aged(growing)
    again = run(model, growing, outputs=(report,))
    assert (again.deferred, again.pending) == (0, len(PAGES) + 2)  # aged() touched them all
    assert report.read_bytes() == predicted(model, growing)


def test_a_file_that_is_replaced_while_the_run_is_on_waits_for_the_next_one(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(growing)
    report = tmp_path / "report.csv"
    write_png(tmp_path / "other.png", on_page(digits(60)[59], 40, 40))
    replaced = growing / "many/039.png"
    during_prediction(monkeypatch, lambda: (tmp_path / "other.png").replace(replaced))
    summary = run(model, growing, outputs=(report,), batch_size=1, settle_seconds=2.0)
    assert summary.deferred == 1
    rows = by_page(report.read_bytes())
    assert ("many/039.png", 1) not in rows
    assert len(rows) == sum(PAGES.values()) - 1
    run(model, growing, outputs=(report,))
    assert report.read_bytes() == predicted(model, growing)


@pytest.mark.parametrize("instead", ["nothing", "an empty folder", "a file"])
@pytest.mark.parametrize("source", ["{}", "{}/*"])
def test_a_source_that_is_taken_away_while_it_is_read_leaves_the_report(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, instead: str
) -> None:
    report = tmp_path / "report.csv"
    run(model, source.format(growing), outputs=(report,))
    before = report.read_bytes()
    write_png(growing / "new.png", on_page(digits(60)[59], 40, 40))
    expected = predicted(model, source.format(growing))

    def unmount() -> None:
        growing.rename(tmp_path / "unmounted")
        if instead == "an empty folder":
            growing.mkdir()
        elif instead == "a file":
            growing.write_text("")

    during_prediction(monkeypatch, unmount)
    with pytest.raises(StorageError, match=r"was taken away while it was read.*Reports stay as they are"):
        run(model, source.format(growing), outputs=(report,))
    assert report.read_bytes() == before
    if growing.exists():
        growing.rmdir() if growing.is_dir() else growing.unlink()
    (tmp_path / "unmounted").rename(growing)
    monkeypatch.setattr(pipeline, "Predictor", StandIn)
    run(model, source.format(growing), outputs=(report,))
    assert report.read_bytes() == expected


def test_files_that_are_deleted_one_by_one_are_no_source_that_was_taken_away(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during_prediction(monkeypatch, (growing / "many/039.png").unlink)
    rows = by_page(predicted(model, growing, batch_size=1))
    assert "deleted or renamed" in rows["many/039.png", 1]["detail"]


# ---- what reports are replaced -------------------------------------------------------------------------------------


def test_edited_reports_of_all_formats_are_kept_and_the_run_goes_on(
    growing: Path, model: Bundle, tmp_path: Path
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.parquet")
    run(model, growing, outputs=reports)
    for report in reports:
        report.write_bytes(report.read_bytes() + b"\r\n")
    edited = [report.read_bytes() for report in reports]
    run(model, growing, outputs=reports)
    assert reports[0].read_bytes() == predicted(model, growing)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.edited-*"))] == edited


def test_a_report_of_other_sources_is_replaced_only_when_it_is_asked_for(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing / "many", outputs=(report,))
    before = report.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "discover", _interrupted)  # it is said before any work
        with pytest.raises(UsageError, match="--overwrite"):
            run(model, growing, outputs=(report,))
    assert report.read_bytes() == before
    run(model, growing, outputs=(report,), overwrite=True)
    assert report.read_bytes() == predicted(model, growing)
    assert reports_in(tmp_path) == ["growing", "report.csv"]


@pytest.mark.parametrize("year", [1902, 2400])
def test_a_file_of_another_century_is_read_once(tmp_path: Path, model: Bundle, year: int) -> None:
    image = write_png(tmp_path / "in" / "a.png", one_of_each()[0])
    subprocess.run(["touch", "-d", f"{year}-01-01", image], check=True)
    report = tmp_path / "report.csv"
    assert run(model, tmp_path / "in", outputs=(report,), settle_seconds=2.0).rows.total() == 1
    assert run(model, tmp_path / "in", outputs=(report,), settle_seconds=2.0).pending == 0


def test_one_of_several_folders_that_is_empty_now_leaves_the_report(tmp_path: Path, model: Bundle) -> None:
    for name in ("a/1.png", "b/1.png", "b2/1.png"):
        write_png(tmp_path / name, one_of_each()[0])
    sources = [tmp_path / name for name in ("a", "b", "b2")]
    report = tmp_path / "report.csv"
    run(model, *sources, outputs=(report,))
    before = report.read_bytes()
    (tmp_path / "b" / "1.png").rename(tmp_path / "away.png")
    with pytest.raises(NoImages, match=r"No image was found in \S+/b; .*Reports stay"):
        run(model, *sources, outputs=(report,))
    assert report.read_bytes() == before
    assert run(model, *sources, outputs=(report,), allow_empty=True).rows.total() == 2


def test_a_young_file_that_was_in_hand_when_a_run_died_is_not_read_before_it_has_come_of_age(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(growing)
    report = tmp_path / "report.csv"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Ledger, "record", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, growing, outputs=(report,))
    write_png(growing / "a.png", on_page(digits(60)[59], 40, 40))
    deferred: list[str] = []

    def has_changed(file: ImageFile, **_: bool) -> bool:
        return file.name == "a.png" and not deferred.append(file.name)

    monkeypatch.setattr(settling, "has_changed", has_changed)
    summary = run(model, growing, outputs=(report,), settle_seconds=0.3)
    assert (summary.deferred, deferred) == (1, ["a.png"])


def test_a_report_that_is_its_own_ledger_is_refused(growing: Path, model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report.csv")
    for ledger in (tmp_path / "report.csv", tmp_path / "link"):
        with pytest.raises(UsageError, match="is also a report"):
            run(model, growing, outputs=(tmp_path / "report.csv",), ledger=ledger)
    assert not (tmp_path / "report.csv").exists()


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
        patch.setattr(pipeline.publish, "publish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, growing, outputs=(report,))
    resumed = run(model, growing, outputs=(report,))
    assert (resumed.pending, resumed.faulty) == (0, 5)


def test_what_was_in_hand_when_a_run_died_is_read_by_itself_and_the_report_is_the_same(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Ledger, "record", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, growing, outputs=(report,))
    alone: list[str] = []
    one_by_one = local.one_by_one

    def noted(files: Iterable[ImageFile], **options: Any) -> Iterator[Batch]:
        return one_by_one((alone.append(file.name) or file for file in files), **options)  # type: ignore[func-returns-value]

    monkeypatch.setattr(local, "one_by_one", noted)
    run(model, growing, outputs=(report,))
    assert len(alone) == len(PAGES)
    assert report.read_bytes() == predicted(model, growing)
    alone.clear()
    run(model, growing, outputs=(report,), force=True)
    assert alone == []


# ---- people's answers ----------------------------------------------------------------------------------------------


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
    assert all(row["final"] == (row["digit"] if row["status"] == "ok" else "") for row in before.values())
    answer(reports[0], B="9", a="x", pages="4", blank="x", truncated="0", photo="x")
    with no_model():
        run(model, growing, outputs=reports, threshold=0.0)
    after = by_page(reports[0].read_bytes())
    changed = {key: (row["corrected"], row["final"]) for key, row in after.items() if row["corrected"]}
    assert changed == {
        ("B.png", 1): ("9", "9"),
        ("a.png", 1): ("x", ""),
        **{("a/b/pages.tif", number): ("4", "4") for number in range(1, 6)},
        ("a/blank.png", 1): ("x", ""),
        ("photo.heic", 1): ("x", ""),
        ("truncated.jpg", 1): ("0", "0"),
    }
    same = [{**row, "corrected": "", "final": ""} for row in after.values()]
    assert same == [{**row, "corrected": "", "final": ""} for row in before.values()]
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
    assert rows["B.png", 1]["status"] == "review"
    assert {key: row["final"] for key, row in rows.items() if row["final"] and row["status"] == "review"} == {
        ("B.png", 1): "9"
    }


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
    (tmp_path / "report.csv").symlink_to("real/night.csv")
    run(model, growing, outputs=(tmp_path / "report.csv",))
    with pytest.raises(UsageError, match="was made from other sources"):
        run(model, growing / "many", outputs=(tmp_path / "report.csv",), no_ledger=True)


def test_a_signal_while_the_model_is_loaded_lets_the_batch_in_hand_be_finished(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, asked, is_new = threading.Semaphore(0), threading.Event(), pipeline.Ledger.is_new

    class Slow(StandIn):
        def __enter__(self) -> "Slow":
            assert judged.acquire(timeout=10)  # a batch waits for the model
            os.kill(os.getpid(), signal.SIGTERM)
            asked.set()
            return self

    def and_wait(self: pipeline.Ledger, batch: Batch) -> Any:  # noqa: ANN401
        judged.release()
        assert asked.wait(timeout=10)
        return is_new(self, batch)

    monkeypatch.setattr(pipeline, "Predictor", Slow)
    monkeypatch.setattr(pipeline.Ledger, "is_new", and_wait)
    with Stop() as stop, pytest.raises(Terminated):
        run(model, growing, outputs=(tmp_path / "report.csv",), batch_size=7, stop=stop)
    monkeypatch.setattr(pipeline, "Predictor", StandIn)
    assert len(PAGES) - 14 < run(model, growing, outputs=(tmp_path / "report.csv",)).pending < len(PAGES)


def test_a_signal_among_the_renames_lets_all_reports_be_of_one_run(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.parquet")
    run(model, growing, outputs=reports)
    old = [file_sha256(report) for report in reports]
    (growing / "B.png").unlink()
    rename, asked = Path.replace, []

    def ask_to_end_and_rename(path: Path, target: Path) -> Path:
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", ask_to_end_and_rename)
    with Stop() as stop, pytest.raises(Terminated):
        run(model, growing, outputs=reports, stop=stop)
    assert [file_sha256(report) == before for report, before in zip(reports, old, strict=True)] == [False, False]
    assert run(model, growing, outputs=reports).pending == 0
    assert list(tmp_path.glob("*.edited-*")) == []


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


def test_files_behind_a_url_are_fetched_while_others_are_predicted(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", mixed / "many")
    both, fetch, fetches = threading.Barrier(2, timeout=20), read_remote, itertools.count()

    class Meeting(StandIn):
        met = False

        def __call__(self, pixels: InkImages) -> Logits:
            if not self.met:
                both.wait()  # for a fetch that begins later; and that one waits for this prediction
                self.met = True
            return super().__call__(pixels)

    def fetched(files: Sequence[tuple[str, int]], most_bytes: int) -> dict[str, bytes | Fault]:
        if next(fetches) == 4:
            both.wait()
        return fetch(files, most_bytes)

    monkeypatch.setattr(pool, "_CHUNK_FILES", 4)
    monkeypatch.setattr(pipeline, "Predictor", Meeting)
    monkeypatch.setattr(reading, "read_remote", fetched)
    report = predicted(model, f"zip://{archive}", batch_size=4, workers=1)
    assert next(fetches) == len(list((mixed / "many").iterdir())) / 4
    assert report.count(b",ok,") + report.count(b",review,") == 40


def test_an_archive_that_is_taken_away_while_it_is_read_leaves_the_report(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "scans"), "zip", mixed / "many"))
    report = tmp_path / "report.csv"
    report.write_text("old")

    class TakingAway(StandIn):
        def __call__(self, pixels: InkImages) -> Logits:
            archive.unlink(missing_ok=True)
            return super().__call__(pixels)

    monkeypatch.setattr(pipeline, "Predictor", TakingAway)
    with pytest.raises(StorageError, match="was taken away while it was read"):
        run(model, f"zip://{archive}", outputs=(report,), no_ledger=True)
    assert report.read_text() == "old"

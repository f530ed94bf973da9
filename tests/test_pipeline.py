"""The pipeline: files in, a row a page out, the same bytes however the work is cut. A stand-in predicts."""

import csv
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits import batches, bundle, pipeline
from batchdigits.bundle import Bundle
from batchdigits.decisions import decide, probabilities
from batchdigits.errors import BundleError, FaultKind, NoImages, StorageError, UsageError
from batchdigits.monitoring import Summary
from batchdigits.normalisation import InkImages, normalise
from batchdigits.predictor import Logits
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings, ReportSettings
from tests.digits import digits, on_page, one_of_each, write_png, write_tiff
from tests.disks import names
from tests.standins import StandIn, bundle_in, decoding_threads, logits_of

DATA = Path(__file__).parent / "data"

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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


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
    **options: Any,
) -> Summary:
    chosen = PredictSettings(
        sources=tuple(str(source) for source in sources),
        outputs=tuple(str(output) for output in outputs),
        **{"model": model.directory, **options},
    )
    return pipeline.run(chosen, stdout=stdout or io.BytesIO())


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
    pixels, ink = normalise(pages)
    decided = decide(logits_of(pixels), ink, threshold=0.9, temperature=20.0)
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
    assert summary.passed_over == {"not an image": 1, "hidden or system file": 2}
    assert list(summary.seconds) == ["list", "read", "load model", "predict", "record", "report"]


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
    monkeypatch.setattr(batches, "_CHUNK_FILES", 5)
    wide = ReportSettings(probabilities=True)
    assert predicted(model, mixed, batch_size=batch_size, workers=workers) == expected
    assert predicted(model, mixed, batch_size=batch_size, workers=workers, report=wide) == predicted(
        model, mixed, report=wide
    )


@pytest.mark.parametrize(("limit", "processes"), [(1, True), (1000, False)])
def test_processes_read_many_files_and_threads_few(
    mixed: Path, model: Bundle, limit: int, processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted(model, mixed)
    made = []

    class Noted(batches.Workers):
        def __init__(self, count: int, *, processes: bool) -> None:
            made.append((count, processes))
            super().__init__(count, processes=processes)

    monkeypatch.setattr(pipeline, "Workers", Noted)
    monkeypatch.setattr(pipeline, "FILES_FOR_PROCESSES", limit)
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
    other = bundle.save(
        directory, normalisation=NormalisationSettings(digit_side=12), temperature=300.0, gate=1.0, provenance={}
    )
    (row,) = rows_of(predicted(other, tmp_path / "in", report=ReportSettings(probabilities=True)))
    pixels = normalise([page], other.normalisation).pixels
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

    def __init__(self, bundle: Bundle, *, batch_size: int) -> None:
        super().__init__(bundle, batch_size=batch_size)
        self._left = 2

    def __call__(self, pixels: InkImages) -> Logits:
        self._left -= 1
        if self._left < 0:
            message = "out of memory"
            raise ArithmeticError(message)
        return super().__call__(pixels)


def _interrupted(*_: object) -> Any:  # noqa: ANN401
    raise KeyboardInterrupt


def _gives_no_number(self: StandIn, pixels: InkImages) -> Logits:
    return np.full((len(pixels), 10), np.nan, np.float32)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda patch: patch.setattr(pipeline, "Predictor", _FailsMidway), ArithmeticError),
        (lambda patch: patch.setattr(StandIn, "__call__", _gives_no_number), BundleError),
        (lambda patch: patch.setattr(batches, "_observe", _interrupted), KeyboardInterrupt),
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
    monkeypatch.setattr(pipeline, "Predictor", _interrupted)
    monkeypatch.setattr(batches, "_observe", _interrupted)
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


class _Refuses(StandIn):
    def __init__(self, *args: Any, **options: Any) -> None:
        message = "nothing is new, so no predictor is needed"
        raise AssertionError(message)


@pytest.fixture
def growing(mixed: Path, tmp_path: Path) -> Path:
    """A copy of the mixed folder that a test may change."""
    return Path(shutil.copytree(mixed, tmp_path / "growing"))


def test_nothing_new_needs_no_predictor_and_leaves_the_reports_untouched(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "a.parquet")
    first = run(model, growing, outputs=reports)
    before = [report.stat() for report in reports]
    monkeypatch.setattr(pipeline, "Predictor", _Refuses)
    again = run(model, growing, outputs=reports)
    assert [report.stat() for report in reports] == before
    assert (first.pending, again.pending, again.faulty) == (len(PAGES), 0, 0)
    assert again.rows == first.rows


def test_a_new_threshold_renders_the_report_anew_without_predicting(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    run(model, growing, outputs=(report,))
    monkeypatch.setattr(pipeline, "Predictor", _Refuses)
    run(model, growing, outputs=(report,), threshold=1.0)
    monkeypatch.setattr(pipeline, "Predictor", StandIn)
    assert report.read_bytes() == predicted(model, growing, threshold=1.0)


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


@pytest.mark.parametrize("batches_before", [0, 1, 3, 6])
def test_a_run_that_broke_off_goes_on_where_it_stopped(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_before: int
) -> None:
    report = tmp_path / "report.csv"
    record, seen = pipeline.Ledger.record, []

    def breaks_off(*args: Any) -> None:
        if len(seen) == batches_before:
            raise KeyboardInterrupt
        seen.append(len(args[1].pages))
        record(*args)

    monkeypatch.setattr(pipeline.Ledger, "record", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        run(model, growing, outputs=(report,), batch_size=7)
    assert not report.exists()
    monkeypatch.setattr(pipeline.Ledger, "record", record)
    resumed = run(model, growing, outputs=(report,), batch_size=7)
    assert resumed.pending <= len(PAGES) - sum(seen) + 2 * bool(seen)  # pages of a file that was not whole
    assert report.read_bytes() == predicted(model, growing)

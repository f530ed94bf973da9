"""Errors that nobody foresaw: whatever stage meets one at a file, its row says so, and all others have theirs."""

import csv
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits import pipeline
from batchdigits.decoding import codecs
from batchdigits.engine import local, networks, shared_finder, worker
from batchdigits.errors import (
    BundleError,
    ExitCode,
    Fault,
    Interrupted,
    StorageError,
    Terminated,
    escape_name,
    unforeseen,
)
from batchdigits.inference.bundle import Bundle
from batchdigits.ledger import ledger
from batchdigits.monitoring import Summary
from batchdigits.preprocessing import thumbnails
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.reports import rows
from batchdigits.settings import DecodingSettings, PredictSettings
from batchdigits.storage import reading
from batchdigits.storage.local import file_sha256
from tests.benchmarks.twice import STANDIN, run_twice
from tests.damaged_images import SMALL, mutant
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in, logits_of
from tests.sample_pages import digits, on_page, write_png, write_tiff

HIT = (43, 61)  # height and width of the page at which the stages raise
FILES = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty files, of which one has the size that is hit, and one of several pages."""
    folder = tmp_path_factory.mktemp("files") / "scans"
    for number in range(FILES - 2):
        write_png(folder / f"{number:02}.png", on_page(digits(60)[number], 40, 36))
    write_png(folder / "hit.png", on_page(digits(60)[30], *HIT))
    write_tiff(folder / "pages.tif", [on_page(digit, 40, 50) for digit in digits(60)[40:44]])
    return folder


def run(model: Bundle, scans: Path, report: Path, **options: Any) -> Summary:
    settings = PredictSettings((str(scans),), (str(report),), model=model.directory, settle_seconds=0.0, **options)
    return pipeline.run(settings, stdout=io.BytesIO())


def rows_of(report: Path) -> dict[tuple[str, str], dict[str, str]]:
    with report.open(encoding="utf-8", newline="") as lines:
        return {(row["path"], row["page"]): row for row in csv.DictReader(lines)}


def is_hit(grey: np.ndarray) -> bool:
    return grey.shape == HIT


def seen_of(scans: Path) -> np.ndarray:
    """What the model sees of the page that is hit."""
    [page] = codecs.decode((scans / "hit.png").read_bytes(), DecodingSettings())
    assert isinstance(page, codecs.Page)
    return normalise([page.grey], FakeInkFinder(Path())).pixels[0]


def raising(function: Callable[..., Any], at: Callable[..., Any], error: type[Exception]) -> Callable[..., Any]:
    """Let a function raise where its arguments are of the file that is hit."""

    def raises(*arguments: Any, **options: Any) -> Any:
        if at(*arguments):
            message = "nobody foresaw it"
            raise error(message)
        return function(*arguments, **options)

    return raises


def spoil(stage: str, patch: pytest.MonkeyPatch, scans: Path, error: type[Exception] = OverflowError) -> None:
    """Let a stage raise at one file."""
    pixels, sha256 = seen_of(scans), file_sha256(scans / "hit.png")
    hit_logits = logits_of(pixels[None])[0]

    class Model(FakePredictor):
        def __call__(self, asked: np.ndarray) -> np.ndarray:
            return raising(super().__call__, lambda asked: (asked == pixels).all((1, 2)).any(), error)(asked)

    patch.setattr(local, "can_fork", lambda: True)  # which takes the stand-ins along, whatever was loaded before
    patch.setattr(networks, "Predictor", Model if stage == "predict" else FakePredictor)
    patch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    targets: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "read": (reading, "read_local", lambda path, *_: path.endswith("hit.png")),
        "decode": (worker, "decode", lambda data, *_: data == (scans / "hit.png").read_bytes()),
        "normalise": (worker, "normalise", lambda greys, *_: any(map(is_hit, greys))),
        "decide": (rows, "decide_calibrated", lambda logits, *_: (logits[:, :10] == hit_logits).all(1).any()),
        "draw": (thumbnails, "png", lambda grey, *_: is_hit(grey)),
        "record": (
            ledger,
            "stored",
            lambda columns, _: any(s[:32].hex() == sha256 and f is None for s, f in zip(*columns[8:10], strict=True)),
        ),
        "render": (
            rows,
            "_rows",
            lambda of, _: any(n == "hit.png" and f is None for n, f in zip(of.seen.names, of.seen.faults, strict=True)),
        ),
    }
    if stage in targets:
        module, name, at = targets[stage]
        for place in {module, worker} if stage == "decide" else {module}:
            patch.setattr(place, name, raising(getattr(place, name), at, error))


STAGES = ("read", "decode", "normalise", "predict", "decide", "draw", "record", "render")


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_at_one_file_is_its_row_and_the_run_goes_on(
    stage: str,
    model: Bundle,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = tmp_path / "report.csv"
    with monkeypatch.context() as patch:
        spoil("none", patch, scans)
        run(model, scans, tmp_path / "whole.csv")
    whole = rows_of(tmp_path / "whole.csv")
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, "batchdigits"):
        spoil(stage, patch, scans)
        assert run(model, scans, report).exit_code == 3
        found = rows_of(report)
        hit = found.pop(("hit.png", "1"))
        assert (hit["status"], hit["digit"]) == ("unreadable", "")
        assert r"unexpected error at it (OverflowError: nobody foresaw it)" in hit["detail"]
        assert found == {key: row for key, row in whole.items() if key != ("hit.png", "1")}
        assert any("hit.png" in line and "Traceback (most recent" in line for line in caplog.messages)

        run(model, scans, report)  # a later run
        assert rows_of(report).pop(("hit.png", "1"))["status"] == "unreadable"
        assert len(rows_of(report)) == len(whole)
    spoil("none", monkeypatch, scans)  # the program is mended
    assert run(model, scans, report, retry_failed=True).exit_code == 0
    assert rows_of(report) == whole


@pytest.mark.parametrize("stage", ["read", "decode", "normalise"])
@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_what_may_pass_is_tried_again_by_the_next_run(
    error: type[Exception], stage: str, model: Bundle, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.csv"
    with monkeypatch.context() as patch:
        spoil(stage, patch, scans, error)
        assert run(model, scans, report).exit_code == 3
    assert rows_of(report)["hit.png", "1"]["status"] == "unreadable"
    spoil("none", monkeypatch, scans)
    assert run(model, scans, report).exit_code == 0
    assert rows_of(report)["hit.png", "1"]["status"] != "unreadable"


@pytest.mark.parametrize("stage", ["predict", "decide", "draw", "record", "render"])
@pytest.mark.parametrize("error", [StorageError, OSError, MemoryError, Interrupted, Terminated])
def test_what_is_no_fault_of_a_file_ends_the_run(
    error: type[Exception], stage: str, model: Bundle, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(stage, monkeypatch, scans, error)
    with pytest.raises(error):
        run(model, scans, tmp_path / "report.csv")


def test_a_model_that_cannot_be_run_is_no_fault_of_the_files(
    model: Bundle, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakePredictor):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            message = "no accelerator"
            raise RuntimeError(message)

    monkeypatch.setattr(local, "can_fork", lambda: True)
    monkeypatch.setattr(networks, "Predictor", Broken)
    monkeypatch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    with pytest.raises(RuntimeError, match="no accelerator"):
        run(model, scans, tmp_path / "report.csv")


def test_an_ink_finder_that_cannot_be_opened_ends_the_run_and_no_row_is_lost(
    model: Bundle, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeInkFinder):
        def __enter__(self) -> "Broken":
            message = "the ink finder cannot be opened"
            raise BundleError(message)

    report, whole = tmp_path / "report.csv", tmp_path / "whole.csv"
    spoil("none", monkeypatch, scans)
    run(model, scans, whole)
    with monkeypatch.context() as patch:
        patch.setattr(shared_finder, "InkFinder", Broken)
        with pytest.raises(BundleError, match="the ink finder cannot be opened") as caught:
            run(model, scans, report)
    assert caught.value.exit_code == ExitCode.BUNDLE == 6
    assert not report.exists()
    run(model, scans, report)  # it is mended
    assert rows_of(report) == rows_of(whole)
    assert len(rows_of(report)) == FILES - 1 + 4
    assert not any("unreadable" in row["status"] for row in rows_of(report).values())


def test_the_words_of_an_error_fit_into_a_row() -> None:
    fault = unforeseen(ValueError("\x1b[2J\ud800\n" + "long " * 100))
    assert fault.detail.isascii()
    assert fault.detail.isprintable()
    assert len(fault.detail) < 250
    assert isinstance(fault, Fault)
    assert escape_name("\udfff") == r"\udfff"


def test_broken_headers_go_through_the_whole_program_twice(tmp_path: Path) -> None:
    """A few of the many of `benchmarks/fuzzing.py --program`."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(200):
        file = mutant(number)
        (scans / f"{number}.{file.kind.lower()}").write_bytes(file.data)
    found = run_twice(scans, "--max-pixels", str(SMALL.max_pixels), command=STANDIN)
    assert (found.files, found.codes, found.trouble) == (200, [ExitCode.FAULTS, ExitCode.OK], [])

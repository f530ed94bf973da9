"""What ends a run: nothing to read, something wrong, a failure midway, a signal; old reports stay, and no worker."""

import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits import pipeline
from batchdigits.engine import local, networks, pool
from batchdigits.engine.run_context import Stop
from batchdigits.errors import BundleError, NoImages, StorageError, Terminated, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.thresholds import Domain
from batchdigits.records import InkImages, Logits
from batchdigits.reports import rows
from batchdigits.storage import local as storage
from batchdigits.storage.local import file_sha256
from tests.fake_model import RISKS, FakePredictor
from tests.file_states import names
from tests.pipeline.runs import PAGES, interrupted, reports_in, rows_of, run
from tests.sample_pages import one_of_each, write_png


def test_a_folder_without_images_ends_the_run_and_leaves_the_report(tmp_path: Path, model: Bundle) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no image")
    report = tmp_path / "report.csv"
    report.write_text("last night")
    with pytest.raises(NoImages, match=r"1 × not an image.*\.png.*stay as they are"):
        run(model, tmp_path / "in", outputs=(report,))
    assert report.read_text() == "last night"


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


def test_what_is_wrong_with_the_command_is_said_before_any_work(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "NetworkProcess", interrupted)
    with pytest.raises(UsageError, match="ending"):
        run(model, mixed, outputs=(tmp_path / "report.doc",))
    with pytest.raises(StorageError, match="does not exist"):
        run(model, tmp_path / "nowhere", outputs=(tmp_path / "report.csv",))
    with pytest.raises(BundleError, match="nowhere"):
        run(replace(model, directory=tmp_path / "nowhere"), mixed)
    assert set(names(tmp_path)) <= {".report.csv.ledger.lock"}


def test_a_target_that_the_model_cannot_prove_ends_the_run_before_any_work(
    growing: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "discover", interrupted)
    calibration = replace(model.calibration, domains=(Domain("all", digits=6000, risks=RISKS[:1]),))
    monkeypatch.setattr(bundle, "load", lambda _: replace(model, calibration=calibration))
    with pytest.raises(UsageError, match=r"cannot prove the target error 0\.05%: .* it takes about 5,990"):
        run(model, growing, target_error=0.0005)


def test_a_report_that_is_its_own_ledger_is_refused(growing: Path, model: Bundle, tmp_path: Path) -> None:
    (tmp_path / "report.csv").touch()
    (tmp_path / "link").symlink_to("report.csv")
    for ledger in (tmp_path / "report.csv", tmp_path / "link"):
        with pytest.raises(UsageError, match="is also a report"):
            run(model, growing, outputs=(tmp_path / "report.csv",), ledger=ledger)
    assert (tmp_path / "report.csv").read_bytes() == b""


# ---- a failure midway ----------------------------------------------------------------------------------------------


class _FailsMidway(FakePredictor):
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


def _gives_no_number(self: FakePredictor, pixels: InkImages) -> Logits:
    return np.full((len(pixels), 10), np.nan, np.float32)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda patch: patch.setattr(networks, "Predictor", _FailsMidway), ArithmeticError),
        (lambda patch: patch.setattr(FakePredictor, "__call__", _gives_no_number), BundleError),
        (lambda patch: patch.setattr(pipeline.Ledger, "record", interrupted), KeyboardInterrupt),
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
    monkeypatch.setattr(pool, "_CHUNK_FILES", 5)
    with pytest.raises(error):
        run(model, mixed, outputs=(*reports, "-"), stdout=stdout)
    assert [report.read_text() for report in reports] == ["last night"] * 2
    assert reports_in(tmp_path) == ["a.csv", "a.parquet"]
    assert rows_of(stdout.getvalue() or b"path\r\n") == []


def test_a_failed_run_leaves_no_worker_behind(mixed: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "Predictor", _FailsMidway)
    monkeypatch.setattr(pool, "_CHUNK_FILES", 5)
    with pytest.raises(ArithmeticError):
        run(model, mixed)
    assert multiprocessing.active_children() == []


# ---- a signal ------------------------------------------------------------------------------------------------------


def test_a_signal_while_the_model_is_loaded_ends_the_run_at_once_and_the_next_goes_on(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    class Slow(FakePredictor):
        def __enter__(self) -> "Slow":
            os.kill(parent, signal.SIGTERM)
            time.sleep(1000)
            return self

    with monkeypatch.context() as patch:
        patch.setattr(networks, "Predictor", Slow)
        with Stop() as stop, pytest.raises(Terminated):
            run(model, growing, outputs=(tmp_path / "report.csv",), stop=stop)
    assert multiprocessing.active_children() == []
    assert run(model, growing, outputs=(tmp_path / "report.csv",)).pending == len(PAGES)


def test_a_signal_among_the_renames_lets_all_reports_be_of_one_run(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = (tmp_path / "a.csv", tmp_path / "b.parquet")
    run(model, growing, outputs=reports)
    old = [file_sha256(report) for report in reports]
    (growing / "B.png").unlink()
    rename, asked = storage.put_in_place, []

    def ask_to_end_and_rename(path: Path, target: Path) -> Path | None:
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))
        return rename(path, target)

    monkeypatch.setattr(storage, "put_in_place", ask_to_end_and_rename)
    with Stop() as stop, pytest.raises(Terminated):
        run(model, growing, outputs=reports, stop=stop)
    assert [file_sha256(report) == before for report, before in zip(reports, old, strict=True)] == [False, False]
    assert run(model, growing, outputs=reports).pending == 0
    assert list(tmp_path.glob("*.edited-*")) == []


def test_a_folder_of_pages_with_several_digits_is_told_what_this_program_reads(
    growing: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    summary = run(model, growing, threshold=0.1)
    assert "several digits" not in caplog.text
    monkeypatch.setattr(rows, "SEVERAL_DIGITS", "")  # the detail of all that is ok
    run(model, growing, threshold=0.1)
    ok, pages = summary.rows["ok"], summary.rows.total()
    assert ok > 2
    sentence = f"{ok} of {pages} images seem to hold several digits or letters; this program reads one digit an image."
    assert sentence in caplog.text

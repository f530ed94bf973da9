"""What a run writes of each page: its row, the same bytes however the work is cut, and what settings change."""

import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits import pipeline, progress
from batchdigits.cli.closing import closing
from batchdigits.engine import pool
from batchdigits.errors import FaultKind
from batchdigits.inference import bundle, drift, trust
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import decide, probabilities
from batchdigits.inference.thresholds import Calibration, DoubtCounts, ThresholdCounts
from batchdigits.inference.trust import Basis
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.settings import DecodingSettings, NormalisationSettings, ReportSettings
from tests.fake_model import DOMAINS, logits_of
from tests.pipeline.conftest import stand_in
from tests.pipeline.runs import FINDER, PAGES, by_page, predicted, reports_in, rows_of, run, shown_in_csv
from tests.sample_pages import digits, on_page, one_of_each, write_png, write_tiff


def test_every_page_of_every_image_has_one_row_in_order(whole: bytes) -> None:
    expected = sorted(
        (name.replace("\n", r"\x0a"), number) for name, count in PAGES.items() for number in range(1, count + 1)
    )
    found = [(row["path"].removeprefix("'"), int(row["page"])) for row in rows_of(whole)]
    assert found == expected


def test_a_row_says_what_its_own_page_says_alone(whole: bytes, mixed: Path, model: Bundle, tmp_path: Path) -> None:
    rows = by_page(whole)
    for name in [name for name in PAGES if not name.startswith("many/") or name.endswith("7.png")]:
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        (tmp_path / "one" / name).parent.mkdir(parents=True)
        shutil.copy(mixed / name, tmp_path / "one" / name)
        alone = rows_of(predicted(model, tmp_path / "one"))
        assert alone == [rows[shown_in_csv(name), number] for number in range(1, PAGES[name] + 1)]


def test_digit_and_confidence_are_those_of_the_pixels(whole: bytes, model: Bundle) -> None:
    rows = by_page(whole)
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


def test_every_kind_of_fault_has_its_row_and_its_cells_are_empty(whole: bytes) -> None:
    rows = by_page(whole)
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


def test_reports_of_all_formats_agree(whole: bytes, mixed: Path, model: Bundle, tmp_path: Path) -> None:
    outputs = (tmp_path / "a.csv", tmp_path / "b.parquet", "-")
    stdout = predicted(model, mixed, outputs=outputs)
    assert (tmp_path / "a.csv").read_bytes() == stdout == whole
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


@settings(max_examples=15, deadline=None)
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


# ---- the same bytes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(model: Bundle, mixed: Path) -> bytes:
    """The report of the whole folder with the probability of each digit."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        return predicted(model, mixed, report=ReportSettings(probabilities=True))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 3), (7, 1), (7, 3), (256, 3)])
def test_a_report_does_not_hang_on_batches_or_workers(
    wide: bytes, mixed: Path, model: Bundle, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CHUNK_FILES", 5)
    report = ReportSettings(probabilities=True)
    assert predicted(model, mixed, batch_size=batch_size, workers=workers, report=report) == wide


def test_probabilities_are_columns_more_and_change_no_other(whole: bytes, wide: bytes) -> None:
    columns = {f"p{digit}" for digit in range(10)}
    rows = [{name: cell for name, cell in row.items() if name not in columns} for row in rows_of(wide)]
    assert rows == rows_of(whole)


def test_parquet_does_not_hang_on_batches_or_workers_either(mixed: Path, model: Bundle, tmp_path: Path) -> None:
    for batch_size, workers in ((256, 1), (3, 3)):
        report = tmp_path / f"{batch_size}.parquet"
        run(model, mixed, outputs=(report,), batch_size=batch_size, workers=workers)
    assert (tmp_path / "3.parquet").read_bytes() == (tmp_path / "256.parquet").read_bytes()


def test_the_order_in_which_the_disk_lists_does_not_matter(
    whole: bytes, mixed: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    discover = pipeline.discover
    monkeypatch.setattr(pipeline, "discover", lambda *args, **kw: reversed(list(discover(*args, **kw))))
    assert predicted(model, mixed) == whole


# ---- what the settings change --------------------------------------------------------------------------------------


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
    calibration = Calibration(temperature=300.0, gate=1.0, domains=DOMAINS)
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


def test_no_progress_is_shown_unless_it_is_asked_for(
    mixed: Path, model: Bundle, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TICK", 0.001)
    predicted(model, mixed / "many")
    assert capfd.readouterr() == ("", "")
    predicted(model, mixed / "many", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Reading" in err


def test_a_run_with_the_stand_in_loads_no_tensorflow(mixed: Path, model: Bundle) -> None:
    loaded = "tensorflow" in sys.modules  # by another test, perhaps
    predicted(model, mixed)
    assert ("tensorflow" in sys.modules) == loaded


def test_a_run_whose_confidences_have_drifted_says_so(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "in" / "a.png", on_page(one_of_each()[2]))
    monkeypatch.setattr(drift, "LEAST_ROWS", 1)
    sure, unsure = (0,) * 9 + (9,), (9,) + (0,) * 9
    all_ok = (replace(DOMAINS[0], risks=(ThresholdCounts(0.0, 9000, 0),)),)
    for reference, is_told, is_known in ((sure, True, True), (unsure, False, True), ((), False, False)):
        calibration = replace(model.calibration, reference=reference, domains=all_ok)
        monkeypatch.setattr(bundle, "load", lambda _, made=calibration: replace(model, calibration=made))
        caplog.clear()
        found = run(model, tmp_path / "in")
        assert (found.drift is not None) == is_known
        assert found.trust.drifted == is_told
        assert ("proven" in found.trust.words()) != is_told
        sentence = (
            "These scans differ from what the model was tested on. Expect more mistakes than 0.5%: answer the 1 picture"
        )
        assert any(sentence in said for said in caplog.messages) == is_told
    calibration = replace(model.calibration, reference=sure)
    monkeypatch.setattr(bundle, "load", lambda _: replace(model, calibration=calibration))
    for threshold, remedy in ((0.5, "look through"), (0.0, "answer the 1 pictures of the audit sample")):
        caplog.clear()
        assert run(model, tmp_path / "in", threshold=threshold).audit.sample == (threshold == 0.0)
        assert f"Expect more mistakes than usual: {remedy}" in caplog.text  # nothing was promised


def test_a_report_says_from_its_ledger_alone_how_many_are_probably_wrong_and_its_threshold_follows(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts = (DoubtCounts(0.1, 4000, 8), DoubtCounts(0.2, 5000, 20), DoubtCounts(0.6, 6000, 600))
    domains = (replace(DOMAINS[0], doubts=doubts),)
    calibration = replace(model.calibration, domains=domains)
    monkeypatch.setattr(bundle, "load", lambda _: replace(model, calibration=calibration))
    monkeypatch.setattr(trust, "LEAST_DIGITS", 10)
    report = tmp_path / "report.csv"
    first = run(model, growing, outputs=(report,))
    written = report.read_bytes()
    assert (first.trust.basis, first.trust.domain) in ((Basis.FOLDER, "all"), (Basis.DOUBTFUL, "all"))
    assert first.trust.threshold != 0.9
    assert first.trust.words() in " ".join(closing(first, ("report.csv",), verbose=True).split())
    assert (first.trust.expected, first.rows["ok"]) == (None, 0)  # of nothing, nothing is wrong
    again = run(model, growing, outputs=(report,))
    assert (again.pending, again.trust) == (0, first.trust)
    assert report.read_bytes() == written
    assert run(model, growing, outputs=(report,), no_adapt=True).trust.threshold == 0.9
    assert run(model, growing, outputs=(report,), threshold=0.7).trust.threshold == 0.7


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

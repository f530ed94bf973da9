"""While a folder is read: files that are still written, replaced or deleted, and sources that are taken away."""

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from batchdigits.engine import networks, pool
from batchdigits.errors import Fault, StorageError
from batchdigits.inference.bundle import Bundle
from batchdigits.records import InkImages, Logits
from batchdigits.storage import reading
from batchdigits.storage.guards import Sources
from batchdigits.storage.reading import read_remote
from tests.fake_model import FakePredictor
from tests.pipeline.runs import PAGES, by_page, predicted, rows_of, run
from tests.sample_pages import digits, on_page, one_of_each, write_png


def aged(folder: Path, seconds: float = 100.0) -> None:
    """Let all files of a folder be that old."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def during_prediction(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen when the first batch has been read and is predicted."""

    class Interrupting(FakePredictor):
        def __call__(self, pixels: InkImages) -> Logits:
            if not done.value:
                happens()
                done.value = 1
            return super().__call__(pixels)

    done = multiprocessing.get_context("fork").Value("b", 0)  # whichever process predicts
    monkeypatch.setattr(networks, "Predictor", Interrupting)
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


def test_a_copy_of_a_file_that_changes_while_it_is_read_waits_with_it(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, report = tmp_path / "scans", tmp_path / "report.csv"
    first = write_png(scans / "a.png", one_of_each()[0])
    write_png(scans / "b.png", one_of_each()[1])
    shutil.copy(first, scans / "c.png")
    aged(scans)
    opening = Sources.open

    def opened(self: Sources, path: str) -> int:
        descriptor = opening(self, path)
        if path == str(first):
            os.utime(first)
        return descriptor

    monkeypatch.setattr(pool, "_CHUNK_FILES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Sources, "open", opened)
        summary = run(model, scans, outputs=(report,), settle_seconds=2.0, workers=1)
    assert (summary.deferred, [row["path"] for row in rows_of(report.read_bytes())]) == (2, ["b.png"])
    aged(scans)
    assert run(model, scans, outputs=(report,)).deferred == 0
    assert report.read_bytes() == predicted(model, scans)


def test_a_file_that_is_replaced_while_the_run_is_on_waits_for_the_next_one(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(growing)
    report = tmp_path / "report.csv"
    write_png(tmp_path / "other.png", on_page(digits(60)[59], 40, 40))
    replaced = growing / "many/039.png"
    during_prediction(monkeypatch, lambda: (tmp_path / "other.png").replace(replaced))
    summary = run(model, growing, outputs=(report,), settle_seconds=2.0)
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
    monkeypatch.setattr(networks, "Predictor", FakePredictor)
    run(model, source.format(growing), outputs=(report,))
    assert report.read_bytes() == expected


def test_files_that_are_deleted_one_by_one_are_no_source_that_was_taken_away(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during_prediction(monkeypatch, (growing / "many/039.png").unlink)
    rows = by_page(predicted(model, growing))
    assert "deleted or renamed" in rows["many/039.png", 1]["detail"]


def test_nothing_outside_is_read_in_the_place_of_a_file_or_of_a_folder(
    growing: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = Path(shutil.copytree(growing / "many", tmp_path / "outside"))

    def replace_by_links() -> None:
        (growing / "many").rename(tmp_path / "away")
        (growing / "many").symlink_to(outside)
        for name, make in (("photo.heic", Path.symlink_to), ("é.png", Path.hardlink_to)):
            (growing / name).unlink()
            make(growing / name, outside / "039.png")

    during_prediction(monkeypatch, replace_by_links)
    rows = by_page(predicted(model, growing))
    found = {name: rows[name, 1] for name in ("many/039.png", "photo.heic", "é.png")}
    assert {(row["status"], row["sha256"]) for row in found.values()} == {("unreadable", "")}
    assert "a folder of its path was replaced" in found["many/039.png"]["detail"]
    assert "leads out of the source now" in found["photo.heic"]["detail"]
    assert "another file took its place after it was found" in found["é.png"]["detail"]


# ---- an archive ----------------------------------------------------------------------------------------------------


def test_files_behind_a_url_are_fetched_while_others_are_predicted(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", mixed / "many")
    fetch, both = read_remote, multiprocessing.get_context("fork").Barrier(2, timeout=60)

    class Meeting(FakePredictor):
        met = False

        def __call__(self, pixels: InkImages) -> Logits:
            if not self.met:
                both.wait()  # for a fetch that begins later; and that one waits for this prediction
                self.met = True
            return super().__call__(pixels)

    def fetched(files: Sequence[tuple[str, int]], most_bytes: int) -> dict[str, bytes | Fault]:
        if "004.png" in files[0][0]:
            both.wait()
        return fetch(files, most_bytes)

    monkeypatch.setattr(pool, "_CHUNK_FILES", 4)
    monkeypatch.setattr(networks, "Predictor", Meeting)
    monkeypatch.setattr(reading, "read_remote", fetched)
    report = predicted(model, f"zip://{archive}", workers=1)
    assert report.count(b",ok,") + report.count(b",review,") == 40


def test_an_archive_that_is_taken_away_while_it_is_read_leaves_the_report(
    mixed: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "scans"), "zip", mixed / "many"))
    report = tmp_path / "report.csv"
    report.write_text("old")

    class TakingAway(FakePredictor):
        def __call__(self, pixels: InkImages) -> Logits:
            archive.unlink(missing_ok=True)
            return super().__call__(pixels)

    monkeypatch.setattr(networks, "Predictor", TakingAway)
    with pytest.raises(StorageError, match="was taken away while it was read"):
        run(model, f"zip://{archive}", outputs=(report,), no_ledger=True)
    assert report.read_text() == "old"


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

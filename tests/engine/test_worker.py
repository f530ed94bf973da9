"""The reader: every page of every file stands in one part, beside what was seen of it, whatever its neighbours are."""

import gc
import hashlib
import multiprocessing
import resource
import shutil
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.decoding.codecs import Page, decode
from batchdigits.engine import worker as module
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Drawing, Known, Reader, decoded, keep_freed_memory, prepare_process
from batchdigits.errors import FaultKind
from batchdigits.inference.bundle import Bundle
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import Batch, ImageFile, InkImages, Logits
from batchdigits.settings import DecodingSettings, NormalisationSettings
from batchdigits.sources.discovery import discover
from batchdigits.storage.urls import locate
from tests.fake_model import FakeInkFinder, bundle_in, logits_of
from tests.sample_pages import Grey, digits, on_page, write_png, write_tiff

DATA = Path(__file__).parents[1] / "data"
DECODING = DecodingSettings()
FINDER = FakeInkFinder(Path())


class FakeNetworks:
    """What stands in for the networks; it notes how many images it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def ink(self, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return FINDER(looks)

    def digits(self, pixels: InkImages) -> Logits:
        self.asked.append(len(pixels))
        logits = np.full((len(pixels), 12), -1e9, np.float32)
        logits[:, :10] = logits_of(pixels)
        return logits


def image_file(path: Path) -> ImageFile:
    (found,) = discover([locate(str(path))], outputs=[])
    assert isinstance(found, ImageFile)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


def reader(model: Bundle, *, decoding: DecodingSettings = DECODING, timer: StageTimer | None = None) -> Reader:
    drawing = Drawing(threshold=0.99, audit=0.0, is_wanted=True)
    return Reader(FakeNetworks(), model, decoding, drawing, timer or StageTimer())


def read(reader: Reader, files: Sequence[ImageFile], **options: bool) -> list[Batch]:
    left = iter(files)
    parts = reader.parts(files, **options)
    found = [replace(batch, files=[next(left) for _ in range(count)]) for count, batch in parts]
    assert list(left) == []
    return found


def whole(reader: Reader, files: Sequence[ImageFile]) -> Batch:
    return Batch.concat(*read(reader, files))


@dataclass(frozen=True)
class KnownFile:
    """A file and what is on its pages: the grey levels, or the kind of the fault."""

    file: ImageFile
    pages: list[Grey | FaultKind]

    @property
    def faults(self) -> list[FaultKind]:
        return [page for page in self.pages if isinstance(page, FaultKind)]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[KnownFile]:
    """Files of every kind; no two readable pages are alike."""
    folder = tmp_path_factory.mktemp("files")
    files: list[KnownFile] = []  # 32 in the end
    for number in range(20):
        path = write_png(folder / f"digit{number}.png", digits(60)[number])
        files.append(KnownFile(image_file(path), [digits(60)[number]]))
    for number, count in enumerate((1, 2, 3, 7)):
        pages = [on_page(digit, 40, 50) for digit in digits(60)[20 + 7 * number :][:count]]
        files.append(KnownFile(image_file(write_tiff(folder / f"pages{number}.tif", pages)), list(pages)))
    broken: dict[str, list[FaultKind]] = {
        "zero_bytes.png": [FaultKind.UNREADABLE],
        "junk.jpg": [FaultKind.UNREADABLE],
        "truncated.png": [FaultKind.UNREADABLE],
        "truncated.gif": [FaultKind.UNREADABLE],
        "bomb.png": [FaultKind.TOO_LARGE],
        "photo.heic": [FaultKind.UNSUPPORTED],
    }
    for name, faults in broken.items():
        shutil.copy(DATA / name, folder / name)
        files.append(KnownFile(image_file(folder / name), list(faults)))
    shutil.copy(DATA / "broken_second_page.tif", folder)
    middle = image_file(folder / "broken_second_page.tif")
    first, _, third = _decoded(middle)
    files.append(KnownFile(middle, [first, FaultKind.UNREADABLE, third]))
    gone = image_file(write_png(folder / "gone.png", digits(60)[0]))
    Path(gone.path).unlink()
    files.append(KnownFile(gone, [FaultKind.UNREADABLE]))
    assert len(files) == 32
    return files


def _decoded(file: ImageFile) -> list[Grey | FaultKind]:
    pages = decode(Path(file.path).read_bytes(), DECODING)
    return [page.grey if isinstance(page, Page) else page.kind for page in pages]


def rows(batch: Batch) -> list[tuple[str, int]]:
    return [(batch.files[page["file"]].name, int(page["number"])) for page in batch.pages]


def assert_whole(files: Sequence[KnownFile], found: Batch) -> None:
    """Assert that each page has one row, in order, with what is seen of it alone, or its own fault."""
    expected = [(one.file.name, number) for one in files for number in range(1, len(one.pages) + 1)]
    pages = [page for one in files for page in one.pages]
    assert rows(found) == expected
    assert set(found.faults) == set(np.flatnonzero(found.pages["fault"]).tolist())
    for row, page in enumerate(pages):
        if isinstance(page, FaultKind):
            assert found.faults[row].kind is page
        else:
            alone = normalise([page], FINDER)
            np.testing.assert_array_equal(found.pages["logits"][row, :10], logits_of(alone.pixels)[0])
            np.testing.assert_array_equal(found.pages["ink"][row], alone.ink[0])


@settings(max_examples=25, deadline=None)
@given(order=st.lists(st.integers(0, 31), max_size=40), one_by_one=st.booleans())
def test_rows_out_are_pages_in_whatever_their_neighbours(
    known: list[KnownFile], model: Bundle, order: list[int], one_by_one: bool
) -> None:
    files = [known[number] for number in order]
    parts = read(reader(model), [one.file for one in files], one_by_one=one_by_one)
    assert_whole(files, Batch.concat(*parts))
    assert not one_by_one or [len(part.files) for part in parts] == [1] * len(files)


def test_no_two_pages_of_these_tests_look_alike_to_the_model(known: list[KnownFile]) -> None:
    pages = [page for one in known[:24] for page in one.pages if not isinstance(page, FaultKind)]
    assert len({pixels.tobytes() for pixels in normalise(pages, FINDER).pixels}) == len(pages)


def test_what_was_read_is_told_of_after_a_while_and_the_rest_later(
    known: list[KnownFile], model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(data: bytes, *rest: Any) -> Any:
        time.sleep(0.05)
        return decode(data, *rest)

    monkeypatch.setattr(module, "decode", slowly)
    monkeypatch.setattr(module, "_PART_SECONDS", 0.2)
    parts = read(reader(model), [one.file for one in known])
    assert len(parts) >= 6
    assert max(len(part.files) for part in parts) <= 6
    assert_whole(known, Batch.concat(*parts))


def test_a_small_digit_on_a_large_jpeg_is_read_at_full_resolution(tmp_path: Path, model: Bundle) -> None:
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), on_page(digits(60)[3], 500, 600))
    found = whole(reader(model), [image_file(path)])
    (page,) = decode(path.read_bytes(), DECODING)
    assert isinstance(page, Page)
    full, reduced = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), normalise([page.grey], FINDER).pixels
    assert max(page.grey.shape) == 300
    closer = normalise([page.grey], FINDER, full_resolution=[lambda: np.asarray(full)]).pixels
    np.testing.assert_array_equal(found.pages["logits"][:, :10], logits_of(closer))
    assert (logits_of(closer) != logits_of(reduced)).any()
    assert (found.pages["width"][0], found.pages["height"][0]) == (600, 500)


def test_a_worker_keeps_the_memory_that_a_step_freed_for_the_next_one() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc alone is told")
    for prepare in (prepare_process, keep_freed_memory):
        with multiprocessing.get_context("spawn").Pool(1, prepare) as pool:
            assert pool.apply(page_faults_of_steps) < 100


def test_a_worker_does_not_look_for_garbage_in_what_was_there_before() -> None:
    with multiprocessing.get_context("spawn").Pool(1, prepare_process) as pool:
        assert pool.apply(gc.get_freeze_count) > 10_000


def page_faults_of_steps() -> int:
    """Fill a few arrays, as a step of the normalisation does, again and again: page faults of a later step."""
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        some = [np.ones(2**20, np.uint8) for _ in range(8)]
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del some
    return faults


def test_a_page_knows_its_size_and_the_sum_of_its_file(tmp_path: Path, model: Bundle) -> None:
    path = write_tiff(tmp_path / "a.tif", [on_page(digits(60)[0], 40, 60), on_page(digits(60)[1], 30, 50)])
    found = whole(reader(model), [image_file(path)])
    assert [found.pages[name].tolist() for name in ("number", "width", "height")] == [[1, 2], [60, 50], [40, 30]]
    assert found.sha256 == [hashlib.sha256(path.read_bytes()).hexdigest()] * 2


def test_a_fault_keeps_what_is_known_of_its_file(known: list[KnownFile], model: Bundle) -> None:
    found = whole(reader(model), [one.file for one in known])
    at = {Path(name).name: row for row, (name, _) in enumerate(rows(found)) if row in found.faults}
    bomb, gone = found.pages[at["bomb.png"]], found.pages[at["gone.png"]]
    assert (bomb["width"], bomb["height"], bomb["number"]) == (60_000, 60_000, 1)
    assert found.sha256[at["bomb.png"]] == hashlib.sha256((DATA / "bomb.png").read_bytes()).hexdigest()
    assert (gone["width"], gone["height"], found.sha256[at["gone.png"]]) == (0, 0, "")
    assert "deleted or renamed" in found.faults[at["gone.png"]].detail
    assert found.pages["number"][at["broken_second_page.tif"]] == 2


def test_bytes_that_are_known_are_not_decoded_and_have_no_page(known: list[KnownFile], model: Bundle) -> None:
    sums = [hashlib.sha256(Path(one.file.path).read_bytes()).digest() for one in known[:4]]
    pngs = np.sort(np.array([*sums[:3], bytes(31) + b"x", b"x" + bytes(31)], "S32"))
    known_bytes = Known({".png": pngs, ".jpg": np.array(sums[3:], "S32")})
    for number, one in enumerate(known[:4]):
        data = Path(one.file.path).read_bytes()
        assert decoded(one.file, data, DECODING, known_bytes).sha256 == sums[number]
        assert (decoded(one.file, data, DECODING, known_bytes).pages == []) is (number < 3)


def test_of_files_with_the_same_bytes_one_is_predicted_and_each_has_its_rows(
    known: list[KnownFile], model: Bundle, tmp_path: Path
) -> None:
    pages, middle, good = known[21], known[30], known[0]
    again = image_file(Path(shutil.copy(good.file.path, tmp_path / "again.png")))
    other = image_file(Path(shutil.copy(good.file.path, tmp_path / "other.bmp")))
    order = [pages, good, middle, pages, replace(good, file=again), middle, good, replace(good, file=other)]
    one = reader(model)
    found = whole(one, [each.file for each in order])
    assert_whole(order, found)
    assert one._networks.asked == [2 + 1 + 2 + 1]  # type: ignore[attr-defined]
    assert found.thumbnails[0] == found.thumbnails[6]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_file_that_is_no_longer_as_it_was_found_is_told_by_its_place(
    known: list[KnownFile], model: Bundle, tmp_path: Path, one_by_one: bool
) -> None:
    first, copy, other = (
        image_file(Path(shutil.copy(one.file.path, tmp_path / f"{number}.png")))
        for number, one in enumerate([known[0], known[0], known[1]])
    )
    files = [first, copy._replace(mtime_ns=copy.mtime_ns - 1), other, known[2].file._replace(size_bytes=1)]
    found = Batch.concat(*read(reader(model), files, one_by_one=one_by_one))
    assert found.changed == {1, 3}
    assert found.of([3, 2, 1]).changed == {0, 2}


def test_bytes_that_were_told_of_are_known_under_their_ending_alone() -> None:
    sums = [hashlib.sha256(bytes([number])).digest() for number in range(200)]
    some = Known({".png": np.sort(np.array(sums[:50], "S32"))})
    some.add({".png": b"".join(sums[50:100]), ".jpg": sums[150]})
    assert [some.has(".png", sha256) for sha256 in sums] == [True] * 100 + [False] * 100
    assert [number for number, sha256 in enumerate(sums) if some.has(".jpg", sha256)] == [150]
    assert not some.has(".tif", sums[0])


def test_more_sums_than_there_is_room_for_forget_others_and_invent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", 16)
    sums = [hashlib.sha256(bytes([number])).digest() for number in range(200)]
    some = Known()
    some.add({".png": b"".join(sums[:100])})
    assert 0 < sum(some.has(".png", sha256) for sha256 in sums[:100]) <= 16
    assert not any(some.has(".png", sha256) for sha256 in sums[100:])


def test_what_was_told_of_takes_no_more_memory_where_each_file_has_an_ending_of_its_own() -> None:
    some = Known()
    tracemalloc.start()
    for number in range(1000):  # as in `scan.0001`, `scan.0002`, ...
        some.add({f".{number:04}": hashlib.sha256(bytes([number % 256])).digest()})
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size_bytes < 2**20


def test_a_file_whose_bytes_are_as_they_were_has_no_page(known: list[KnownFile], model: Bundle) -> None:
    sha256 = hashlib.sha256(Path(known[1].file.path).read_bytes()).hexdigest()
    files = [known[0].file, known[1].file._replace(known_sha256=sha256), known[2].file._replace(known_sha256="ab" * 32)]
    found = whole(reader(model), files)
    assert [name for name, _ in rows(found)] == [known[0].file.name, known[2].file.name]
    assert found.unchanged == {1: sha256}


def test_the_settings_of_decoding_and_normalisation_are_heeded(tmp_path: Path, model: Bundle) -> None:
    small, large = (
        image_file(write_png(tmp_path / f"{side}.png", on_page(digits(60)[0], side, side))) for side in (40, 41)
    )
    other = NormalisationSettings(digit_side=12)
    found = whole(
        reader(replace(model, normalisation=other), decoding=DecodingSettings(max_pixels=1600)), [small, large]
    )
    assert [fault.kind for fault in found.faults.values()] == [FaultKind.TOO_LARGE]
    expected = logits_of(normalise([on_page(digits(60)[0], 40, 40)], FINDER, other).pixels)
    np.testing.assert_array_equal(found.pages["logits"][:1, :10], expected)
    assert (expected != logits_of(normalise([on_page(digits(60)[0], 40, 40)], FINDER).pixels)).any()


def test_an_ending_that_is_not_read_is_told_from_junk(tmp_path: Path, model: Bundle) -> None:
    files = [tmp_path / "scan.svg", tmp_path / "scan.png"]
    for file in files:
        file.write_bytes(b"content that says nothing")
    found = whole(reader(model), [image_file(file) for file in files])
    assert [fault.kind for fault in found.faults.values()] == [FaultKind.UNSUPPORTED, FaultKind.UNREADABLE]


def test_each_stage_has_its_own_seconds(known: list[KnownFile], model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def later(seconds: float, step: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            clock[0] += seconds
            return step(*arguments, **named)

        return wrapped

    ticking = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr(module, "time", ticking)
    monkeypatch.setattr("batchdigits.engine.run_context.time", ticking)
    monkeypatch.setattr(module, "_PART_SECONDS", 1000.0)
    for name, seconds in (("decode", 1.0), ("normalise", 10.0), ("decide_calibrated", 1000.0)):
        monkeypatch.setattr(module, name, later(seconds, getattr(module, name)))
    monkeypatch.setattr(FakeNetworks, "digits", later(100.0, FakeNetworks.digits))
    timer = StageTimer()
    whole(reader(model, timer=timer), [one.file for one in known[:3]])
    assert timer.taken() == {"decode": 3.0, "normalise": 10.0, "predict": 100.0, "decide": 1000.0}
    assert timer.taken() == {}

"""Batches: every page of every file stands in exactly one, beside its own pixels, whatever its neighbours are."""

import hashlib
import multiprocessing
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.engine import children, worker
from batchdigits.engine import pool as module
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.pool import Workers, assembled, batches, is_work_for_processes
from batchdigits.engine.run_context import StageTimer
from batchdigits.errors import BatchDigitsError, Fault, FaultKind, Interrupted, Terminated
from batchdigits.inference import bundle
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import Batch, ImageFile, SeenPage
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.local import file_sha256
from batchdigits.storage.urls import locate
from tests.commands import run
from tests.digits import Grey, digits, on_page, write_differing, write_png, write_tiff
from tests.fake_model import decoding_threads

DATA = Path(__file__).parents[1] / "data"
DECODING = DecodingSettings()
NORMALISATION = NormalisationSettings()
FINDER = SharedFinder(bundle.PACKAGED, Runtime.LITERT)
"""The packaged one; it starts at once, and in each process anew."""


def image_file(path: Path) -> ImageFile:
    (found,) = discover([locate(str(path))], outputs=[])
    assert isinstance(found, ImageFile)
    return found


def batches_of(files: Iterable[ImageFile], *, size: int = 256, workers: int = 2) -> Iterator[Batch]:
    with Workers(workers, FINDER, processes=False) as pool:
        yield from batches(files, pool, size=size, decoding=DECODING, normalisation=NORMALISATION)


@dataclass(frozen=True)
class Known:
    """A file and what is on its pages: the grey levels, or the kind of the fault."""

    file: ImageFile
    pages: list[Grey | FaultKind]

    @property
    def faults(self) -> list[FaultKind]:
        return [page for page in self.pages if isinstance(page, FaultKind)]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[Known]:
    """Files of every kind; no two readable pages are alike."""
    folder = tmp_path_factory.mktemp("files")
    files: list[Known] = []  # 32 in the end
    for number in range(20):
        path = write_png(folder / f"digit{number}.png", digits(60)[number])
        files.append(Known(image_file(path), [digits(60)[number]]))
    for number, count in enumerate((1, 2, 3, 7)):
        pages = [on_page(digit, 40, 50) for digit in digits(60)[20 + 7 * number :][:count]]
        files.append(Known(image_file(write_tiff(folder / f"pages{number}.tif", pages)), list(pages)))
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
        files.append(Known(image_file(folder / name), list(faults)))
    shutil.copy(DATA / "broken_second_page.tif", folder)
    middle = image_file(folder / "broken_second_page.tif")
    first, _, third = _decoded(middle)
    files.append(Known(middle, [first, FaultKind.UNREADABLE, third]))
    gone = image_file(write_png(folder / "gone.png", digits(60)[0]))
    Path(gone.path).unlink()
    files.append(Known(gone, [FaultKind.UNREADABLE]))
    assert len(files) == 32
    return files


def _decoded(file: ImageFile) -> list[Grey | FaultKind]:
    pages = decode(Path(file.path).read_bytes(), DECODING)
    return [page.grey if isinstance(page, Page) else page.kind for page in pages]


def expected_rows(files: Sequence[Known]) -> list[tuple[str, int]]:
    return [(known.file.name, number) for known in files for number in range(1, len(known.pages) + 1)]


def row(page: SeenPage) -> tuple[str, int]:
    return page.file.name, page.number


def assert_whole(files: Sequence[Known], found: Sequence[Batch], size: int) -> None:
    """Assert that each page stands in one batch, in order, with its own pixels, or its own fault."""
    greys = {
        (known.file.name, number): page
        for known in files
        for number, page in enumerate(known.pages, 1)
        if not isinstance(page, FaultKind)
    }
    kinds = {
        (known.file.name, number): page
        for known in files
        for number, page in enumerate(known.pages, 1)
        if isinstance(page, FaultKind)
    }
    in_order = expected_rows(files)
    assert [row(page) for batch in found for page in batch.pages] == [name for name in in_order if name in greys]
    faults = [(row(page), fault.kind) for batch in found for page, fault in batch.faults]
    assert faults == [(name, kinds[name]) for name in in_order if name in kinds]
    assert all(len(batch.pages) == size or batch.faults for batch in found[:-1])
    for batch in found:
        assert len(batch.pages) == len(batch.pixels) == len(batch.ink) <= size
        assert batch.pages or batch.faults
        for page, pixels, ink in zip(batch.pages, batch.pixels, batch.ink, strict=True):
            alone = normalise([greys[row(page)]], FINDER)
            np.testing.assert_array_equal(pixels, alone.pixels[0])
            np.testing.assert_array_equal(ink, alone.ink[0])


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, 31), max_size=60),
    size=st.sampled_from([1, 2, 3, 7, 64, 256]),
    workers=st.integers(1, 4),
    chunk=st.sampled_from([1, 2, 5, 64]),
)
def test_rows_out_are_pages_in_whatever_the_sizes(
    known: list[Known], order: list[int], size: int, workers: int, chunk: int
) -> None:
    files = [known[number] for number in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_FILES", chunk)
        found = list(batches_of((one.file for one in files), size=size, workers=workers))
    assert_whole(files, found, size)


def test_a_small_digit_on_a_large_jpeg_is_read_at_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), on_page(digits(60)[3], 500, 600))
    (batch,) = batches_of([image_file(path)])
    (page,) = decode(path.read_bytes(), DECODING)
    assert isinstance(page, Page)
    whole, reduced = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), normalise([page.grey], FINDER).pixels
    assert max(page.grey.shape) == 300
    np.testing.assert_array_equal(
        batch.pixels, normalise([page.grey], FINDER, finer=[lambda: np.asarray(whole)]).pixels
    )
    assert (batch.pixels != reduced).any()
    assert (batch.pages[0].width, batch.pages[0].height) == (600, 500)


def test_a_worker_keeps_the_memory_that_a_step_freed_for_the_next_one() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc alone is told")
    with multiprocessing.get_context("spawn").Pool(1, worker.prepare_process) as pool:
        assert pool.apply(page_faults_of_steps) < 100
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(page_faults_of_steps_in_a_thread) < 100


def page_faults_of_steps_in_a_thread() -> int:
    with Workers(1, FINDER, processes=False) as workers:
        return workers._pool.submit(page_faults_of_steps).result()


def page_faults_of_steps() -> int:
    """Fill a few arrays, as a step of the normalisation does, again and again: page faults of a later step."""
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        some = [np.ones(2**20, np.uint8) for _ in range(8)]
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del some
    return faults


def test_no_two_pages_of_these_tests_look_alike_to_the_model(known: list[Known]) -> None:
    pages = [page for one in known[:24] for page in one.pages if not isinstance(page, FaultKind)]
    assert len({pixels.tobytes() for pixels in normalise(pages, FINDER).pixels}) == len(pages)


def test_more_files_than_a_chunk_keep_their_order(known: list[Known]) -> None:
    files = known * 8
    assert_whole(files, list(batches_of((one.file for one in files), size=50, workers=3)), 50)


def test_slow_files_do_not_change_the_order(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(files: list[tuple[str, int, str]], *rest: Any) -> Any:
        time.sleep(0.02 if files[0][0] == known[0].file.path else 0)
        return observe(files, *rest)

    observe = module.observe
    monkeypatch.setattr(module, "_CHUNK_FILES", 3)
    monkeypatch.setattr(module, "observe", slowly)
    assert_whole(known, list(batches_of((one.file for one in known), size=4, workers=4)), 4)


def test_a_fault_costs_no_neighbour_its_row(known: list[Known]) -> None:
    good = known[0]
    for bad in known:
        if bad.faults:
            files = [good, bad, known[1]]
            (batch,) = batches_of(one.file for one in files)
            assert_whole(files, [batch], 256)
            assert [batch.pages[0].file, batch.pages[-1].file] == [good.file, known[1].file]


def test_a_batch_may_hold_faults_alone(known: list[Known]) -> None:
    bad = [one for one in known if one.faults and len(one.pages) == 1]
    (batch,) = batches_of(one.file for one in bad)
    assert [page.file for page, _ in batch.faults] == [one.file for one in bad]
    assert batch.pages == []
    assert (batch.pixels.shape, batch.pixels.dtype) == ((0, 28, 28), np.uint8)
    assert len(batch.ink) == 0


def test_no_files_give_no_batches() -> None:
    assert list(batches_of([])) == []
    assert decoding_threads() == []


def test_a_page_knows_its_size_and_the_sum_of_its_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", [on_page(digits(60)[0], 40, 60), on_page(digits(60)[1], 30, 50)])
    (batch,) = batches_of([image_file(path)])
    assert [(page.number, page.width, page.height) for page in batch.pages] == [(1, 60, 40), (2, 50, 30)]
    assert {page.sha256 for page in batch.pages} == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_fault_keeps_what_is_known_of_its_file(known: list[Known]) -> None:
    faults = {
        page.file.name.rpartition("/")[2]: (page, fault)
        for batch in batches_of(one.file for one in known)
        for page, fault in batch.faults
    }
    page, fault = faults["bomb.png"]
    assert (page.width, page.height, page.number) == (60_000, 60_000, 1)
    assert page.sha256 == hashlib.sha256((DATA / "bomb.png").read_bytes()).hexdigest()
    page, fault = faults["gone.png"]
    assert (page.width, page.height, page.sha256) == (None, None, "")
    assert fault == Fault(FaultKind.UNREADABLE, fault.detail)
    assert "deleted or renamed" in fault.detail
    page, fault = faults["broken_second_page.tif"]
    assert page.number == 2


def test_the_settings_of_decoding_and_normalisation_are_heeded(tmp_path: Path) -> None:
    small, large = (
        image_file(write_png(tmp_path / f"{side}.png", on_page(digits(60)[0], side, side))) for side in (40, 41)
    )
    other = NormalisationSettings(digit_side=12)
    with Workers(1, FINDER, processes=False) as workers:
        limits = DecodingSettings(max_pixels=1600)
        (batch,) = batches([small, large], workers, size=9, decoding=limits, normalisation=other)
    assert [fault.kind for _, fault in batch.faults] == [FaultKind.TOO_LARGE]
    np.testing.assert_array_equal(batch.pixels, normalise([on_page(digits(60)[0], 40, 40)], FINDER, other).pixels)
    assert (batch.pixels != normalise([on_page(digits(60)[0], 40, 40)], FINDER).pixels).any()


def test_an_ending_that_is_not_read_is_told_from_junk(tmp_path: Path) -> None:
    files = [tmp_path / "scan.svg", tmp_path / "scan.png"]
    for file in files:
        file.write_bytes(b"content that says nothing")
    (batch,) = batches_of(image_file(file) for file in files)
    assert [fault.kind for _, fault in batch.faults] == [FaultKind.UNSUPPORTED, FaultKind.UNREADABLE]


# ---- the queue -------------------------------------------------------------------------------------------------------


class Counted:
    """Files that tell how many were taken."""

    def __init__(self, files: Iterable[ImageFile]) -> None:
        self._files = iter(files)
        self.taken = 0

    def __iter__(self) -> Iterator[ImageFile]:
        return self

    def __next__(self) -> ImageFile:
        file = next(self._files)
        self.taken += 1
        return file


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_files_are_taken_than_the_workers_need(
    known: list[Known], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 8)
    files = Counted(known[0].file for _ in range(2000))
    given = 0
    most_ahead = 0
    for batch in batches_of(files, size=10, workers=workers):
        given += len(batch.pages)
        most_ahead = max(most_ahead, files.taken - given)
    assert given == files.taken == 2000
    # Two chunks for each worker and the one that was waited for, and less than a batch that waits to be full.
    assert most_ahead <= 8 * (2 * workers + 1) + 10


def test_nothing_is_taken_before_the_first_batch_is_asked_for(known: list[Known]) -> None:
    files = Counted(one.file for one in known)
    batches_of(files)
    assert files.taken == 0
    assert decoding_threads() == []


def test_large_files_go_into_small_chunks(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(files: list[tuple[str, int, str]], *rest: Any) -> Any:
        sizes.append(len(files))
        return observe(files, *rest)

    observe = module.observe
    monkeypatch.setattr(module, "observe", counted)
    monkeypatch.setattr(module, "_CHUNK_BYTES", known[0].file.size_bytes * 3)
    list(batches_of(known[0].file for _ in range(30)))
    assert sizes == [3] * 10


def test_large_files_do_not_wait_until_a_batch_is_full(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 5)
    monkeypatch.setattr(module, "_BATCH_BYTES", known[0].file.size_bytes * 10)
    monkeypatch.setattr(module, "_BATCH_PAGES", 20)
    pages = [len(batch.pages) for batch in batches_of((known[0].file for _ in range(50)), size=1000)]
    assert pages == [20, 20, 10]  # ten files are large enough, and too few pages
    monkeypatch.setattr(module, "_BATCH_BYTES", known[0].file.size_bytes * 1000)
    assert [len(batch.pages) for batch in batches_of((known[0].file for _ in range(50)), size=1000)] == [50]


def test_faults_do_not_pile_up_until_a_batch_is_full(known: list[Known]) -> None:
    bad = next(one for one in known if one.file.name.endswith("zero_bytes.png"))
    files = Counted(bad.file for _ in range(3000))
    first = next(iter(batches_of(files, size=16, workers=1)))
    assert len(first.faults) < 3000
    assert files.taken < 3000


def test_an_exception_in_the_consumer_ends_the_workers(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 2)
    files = Counted(known[0].file for _ in range(5000))

    def consume() -> None:
        for _ in batches_of(files, size=4, workers=3):
            assert decoding_threads()
            message = "the consumer"
            raise ArithmeticError(message)

    with suppress(ArithmeticError):
        consume()
    assert decoding_threads() == []
    assert files.taken < 100


def test_leaving_early_ends_the_workers(known: list[Known]) -> None:
    ready = batches_of((known[0].file for _ in range(500)), size=4, workers=3)
    next(ready)
    assert decoding_threads()
    ready.close()  # type: ignore[attr-defined]
    assert decoding_threads() == []


def test_an_exception_in_a_worker_or_in_the_files_reaches_the_consumer(
    known: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> Iterator[ImageFile]:
        yield known[0].file
        message = "the folder is gone"
        raise ArithmeticError(message)

    with pytest.raises(ArithmeticError, match="the folder is gone"):
        list(batches_of(failing()))

    def broken(*_: object) -> Batch:
        raise MemoryError

    monkeypatch.setattr(module, "observe", broken)
    with pytest.raises(MemoryError):
        list(batches_of([known[0].file]))
    assert decoding_threads() == []


# ---- worker processes ------------------------------------------------------------------------------------------------


def by_row(found: Iterable[Batch]) -> dict[tuple[str, int], bytes | Fault]:
    batches = list(found)
    pixels = {
        row(page): pixel.tobytes() for batch in batches for page, pixel in zip(batch.pages, batch.pixels, strict=True)
    }
    return pixels | {row(page): fault for batch in batches for page, fault in batch.faults}


def test_processes_give_what_threads_give(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 5)
    files = [one.file for one in known]
    with Workers(2, FINDER, processes=True) as workers:
        found = list(batches(files, workers, size=7, decoding=DECODING, normalisation=NORMALISATION))
    assert_whole(known, found, 7)
    assert by_row(found) == by_row(batches_of(files))
    assert multiprocessing.active_children() == []


def test_a_worker_process_that_dies_ends_the_run_with_a_sentence(known: list[Known]) -> None:
    with Workers(1, FINDER, processes=True) as workers:
        ready = batches([one.file for one in known], workers, size=7, decoding=DECODING, normalisation=NORMALISATION)
        workers.submit([], DECODING, NORMALISATION).result()
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        with pytest.raises(BatchDigitsError, match=r"A decoding worker died at .*digit0\.png or one of the 32 files"):
            next(ready)


def test_without_worker_processes_threads_read(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "Child", refuse)
    with Workers(2, FINDER, processes=True) as workers:
        found = list(
            batches([one.file for one in known], workers, size=7, decoding=DECODING, normalisation=NORMALISATION)
        )
    assert_whole(known, found, 7)


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "BatchDigitsError: The worker processes cannot start; in a script, call batchdigits under `if" in done.stderr


UNGUARDED = """
from batchdigits.storage.urls import locate
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.pool import Workers, batches
from batchdigits.inference import bundle
from batchdigits.sources.discovery import discover
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime

with Workers(1, SharedFinder(bundle.PACKAGED, Runtime.LITERT), processes=True) as workers:
    files = list(discover([locate("a.png")], outputs=[]))
    list(batches(files, workers, size=1, decoding=DecodingSettings(), normalisation=NormalisationSettings()))
"""


@pytest.mark.parametrize("processes", [False, True])
def test_threads_of_opencv_do_not_fight_with_the_workers(processes: bool) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        with Workers(1, FINDER, processes=processes) as workers:
            assert workers._pool.submit(cv2.getNumThreads).result() == 1
    finally:
        cv2.setNumThreads(threads)


def test_each_stage_has_its_own_seconds(known: list[Known], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def later(seconds: float, step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            clock[0] += seconds
            return step(*arguments, **named)

        return wrapped

    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(worker, "decode", later(1.0, worker.decode))
    monkeypatch.setattr(worker, "normalise", later(100.0, worker.normalise))
    files = [document.file for document in known[:3]]
    found = worker.observe(list(map(worker.asked, files)), DECODING, NORMALISATION, FINDER)
    timer = StageTimer()
    assembled(files, found, timer)
    assert {stage: timer.seconds[stage] for stage in ("decode", "normalise")} == {"decode": 3.0, "normalise": 100.0}


def test_ctrl_c_is_not_for_worker_processes() -> None:
    with Workers(1, FINDER, processes=True) as workers:
        workers.submit([], DECODING, NORMALISATION).result()
        (child,) = multiprocessing.active_children()
        found = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{child.pid}/status").read_text())
        assert found is not None
        assert int(found[1], 16) >> signal.SIGINT - 1 & 1


def test_what_a_worker_process_raises_is_raised_here() -> None:
    with Workers(1, FINDER, processes=True) as workers, pytest.raises(TypeError, match="positional argument"):
        workers._children[0].ask("no question")


@pytest.mark.parametrize("count", [1, 3])
def test_each_question_gets_its_own_answer(count: int, tmp_path: Path) -> None:
    files = [image_file(write_png(tmp_path / f"{number}.png", digits(60)[number])) for number in range(60)]
    with Workers(count, FINDER, processes=True) as workers:
        asked = [workers.submit([file] * (1 + at % 3), DECODING, NORMALISATION) for at, file in enumerate(files)]
        for at, (file, future) in enumerate(zip(files, asked, strict=True)):
            sums = [page.sha256 for page in future.result().pages]
            assert sums == [file_sha256(Path(file.path))] * (1 + at % 3)
    assert multiprocessing.active_children() == []


DIES = """
import os, signal, struct, sys
from contextlib import suppress
from batchdigits.engine import pool, worker
from batchdigits.engine.ink import SharedFinder
from batchdigits.errors import DecoderDied
from batchdigits.inference import bundle
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.urls import locate


def serve(questions, answers, replies, finder):
    worker.prepare_process()
    answers.send(None)
    with suppress(EOFError):
        while True:
            files, *settings = questions.recv()
            if files[0][0].endswith("007.png"):
                os.write(answers.fileno(), (struct.pack("!i", 2**20) + bytes(2**20))[:{written}])
                os.kill(os.getpid(), signal.SIGKILL)
            answers.send(worker.observe(files, *settings, finder))


if __name__ == "__main__":
    pool.serve, pool._CHUNK_FILES = serve, 1
    files = sorted(discover([locate(sys.argv[1])], outputs=[]), key=lambda file: file.name)
    with pool.Workers(2, SharedFinder(bundle.PACKAGED, Runtime.LITERT), processes=True) as workers:
        settings = {{"decoding": DecodingSettings(), "normalisation": NormalisationSettings()}}
        try:
            list(pool.batches(files, workers, size=4, **settings))
        except DecoderDied as error:
            print(error)
"""


@pytest.mark.parametrize("written", [0, 2, 4, 60_000])
def test_a_worker_process_that_dies_while_it_answers_ends_the_run_and_does_not_hang_it(
    written: int, tmp_path: Path
) -> None:
    write_differing(tmp_path / "scans", 100)
    for number in range(100):
        (tmp_path / f"scans/{number:02}.png").rename(tmp_path / f"scans/{number:03}.png")
    (tmp_path / "dies.py").write_text(DIES.format(written=written))
    result = run([sys.executable, tmp_path / "dies.py", tmp_path / "scans"])
    assert (result.code, result.stderr) == (0, "")
    # On a busy machine the other worker may still be at the file before, and is ended with it.
    assert re.match(r"A decoding worker died at 00[67]\.png or one of the 1 files from there on", result.stdout)


KILLED = """
import multiprocessing, os, signal, sys
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.pool import Workers
from batchdigits.inference import bundle
from batchdigits.settings import Runtime

if __name__ == "__main__":
    with Workers(2, SharedFinder(bundle.PACKAGED, Runtime.LITERT), processes=True) as workers:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_worker_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    children = killed.stdout.split()
    assert len(children) == 2
    until = time.monotonic() + 30
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("error", [Interrupted, Terminated])
def test_a_run_that_is_asked_to_end_gets_what_is_finished_as_a_short_batch(
    known: list[Known], error: type[BatchDigitsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 4)
    files = [document.file for document in known]

    def asked_to_end() -> Iterator[ImageFile]:
        yield from files[:16]
        time.sleep(0.5)  # the workers finish what they have
        raise error

    found = []
    with pytest.raises(error):
        found.extend(batches_of(asked_to_end(), size=1000))
    assert [page.file for page in found[0].pages] == files[:16]
    assert len(found) == 1


def test_the_seconds_of_the_workers_are_counted(tmp_path: Path) -> None:
    timer = StageTimer()
    write_png(tmp_path / "7.png", digits()[0])
    with Workers(1, FINDER, processes=False) as workers:
        list(
            batches(
                [image_file(tmp_path / "7.png")],
                workers,
                size=4,
                decoding=DecodingSettings(),
                normalisation=NormalisationSettings(),
                timer=timer,
            )
        )
    assert list(timer.seconds) == ["decode", "normalise"]
    assert all(seconds > 0 for seconds in timer.seconds.values())


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 2), (64, 16)])
def test_there_is_a_worker_for_each_core_that_may_be_used_up_to_a_limit(
    cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.os, "sched_getaffinity", lambda process: set(range(cores)))
    assert Workers(None, FINDER, processes=False).count == count
    assert Workers(3, FINDER, processes=False).count == 3


@pytest.mark.parametrize(
    ("files", "size_bytes", "processes"),
    [(0, 0, False), (20, 2000, False), (10_000, 3_000_000, True), (1_000, 38_000_000, True), (100, 3_800_000, False)],
)
def test_much_work_is_for_processes_whether_of_many_files_or_of_large_ones(
    files: int, size_bytes: int, processes: bool
) -> None:
    assert is_work_for_processes(files, size_bytes) == processes

"""The shared ink finder: one of each process, or the one that all processes ask; its trouble ends the run."""

import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.engine import ink as module
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.isolation import one_by_one
from batchdigits.engine.pool import Workers, batches
from batchdigits.engine.run_context import StageTimer
from batchdigits.errors import BatchDigitsError, BundleError
from batchdigits.inference import bundle
from batchdigits.inference.runtimes import InkFinder
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import Batch, ImageFile
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.urls import locate
from tests.digits import digits, on_page, write_png
from tests.fake_model import FakeInkFinder, bundle_in

SETTINGS: dict[str, Any] = {"decoding": DecodingSettings(), "normalisation": NormalisationSettings()}
PAGES = [on_page(digit, 50 + number, 60) for number, digit in enumerate(digits(24))]
"""All are larger than a cut-out."""
LOOKS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


class Counted(FakeInkFinder):
    """A stand-in that tells how often it was loaded, and lets no two threads in."""

    loaded = 0
    inside = threading.Lock()

    def __enter__(self) -> "Counted":
        type(self).loaded += 1
        return self

    def __call__(self, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.inside.acquire(blocking=False), "two threads are inside"
        try:
            return super().__call__(looks)
        finally:
            self.inside.release()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setattr(Counted, "loaded", 0)
    monkeypatch.setattr(module, "InkFinder", Counted)
    return Counted


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    for number, page in enumerate(PAGES):
        write_png(tmp_path / f"scans/{number:02}.png", page)
    found = discover([locate(str(tmp_path / "scans"))], outputs=[])
    return sorted((item for item in found if isinstance(item, ImageFile)), key=lambda file: file.name)


def test_it_is_loaded_when_it_is_asked_first_and_once(counted: type[Counted]) -> None:
    with SharedFinder(bundle.PACKAGED, Runtime.KERAS) as finder:
        assert counted.loaded == 0
        for _ in range(3):
            finder(LOOKS)
        assert counted.loaded == 1
    finder(LOOKS)
    assert counted.loaded == 2  # it was let go


def test_many_threads_ask_one_finder_one_after_the_other(counted: type[Counted]) -> None:
    with SharedFinder(bundle.PACKAGED, Runtime.KERAS) as finder, ThreadPoolExecutor(8) as pool:
        alone = [FakeInkFinder(Path())(LOOKS[[at % 3]]) for at in range(200)]
        asked = [pool.submit(finder, LOOKS[[at % 3]]) for at in range(200)]
        for (maps, kinds), future in zip(alone, asked, strict=True):
            np.testing.assert_array_equal(future.result()[0], maps)
            np.testing.assert_array_equal(future.result()[1], kinds)
    assert counted.loaded == 1


@pytest.mark.parametrize("runtime", list(Runtime))
def test_it_is_handed_to_another_process_by_name_and_not_loaded(runtime: Runtime, counted: type[Counted]) -> None:
    with SharedFinder(bundle.PACKAGED, runtime) as finder:
        finder(LOOKS)
        copy = pickle.loads(pickle.dumps(finder))
    assert (type(copy), copy.folder, copy.runtime) == (SharedFinder, bundle.PACKAGED, runtime)
    assert counted.loaded == 1
    copy(LOOKS)
    assert counted.loaded == 2


def test_a_process_has_its_own_where_that_starts_at_once_and_else_asks_back() -> None:
    def ask_back(looks: np.ndarray) -> Any:
        return looks

    own = SharedFinder(bundle.PACKAGED, Runtime.LITERT).of_process(ask_back)
    assert isinstance(own, SharedFinder)
    assert SharedFinder(bundle.PACKAGED, Runtime.KERAS).of_process(ask_back) is ask_back


# ---- in threads and in processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [False, True])
def test_workers_read_pages_by_litert_as_the_finder_alone_does(
    files: list[ImageFile], network: InkFinder, processes: bool
) -> None:
    with (
        SharedFinder(bundle.PACKAGED, Runtime.LITERT) as finder,
        Workers(2, finder, processes=processes) as workers,
    ):
        (batch,) = batches(files, workers, size=99, **SETTINGS)
    alone = normalise(PAGES, network)
    np.testing.assert_array_equal(batch.pixels, alone.pixels)
    np.testing.assert_array_equal(batch.ink, alone.ink)


def read_in_processes(files: list[ImageFile], finder: SharedFinder) -> list[Batch]:
    with Workers(2, finder, processes=True) as workers:
        return list(batches(files, workers, size=99, **SETTINGS))


def read_one_by_one(files: list[ImageFile], finder: SharedFinder) -> list[Batch]:
    return list(one_by_one(files, finder=finder, timer=StageTimer(), **SETTINGS))


@pytest.mark.parametrize("read", [read_in_processes, read_one_by_one])
def test_processes_ask_the_finder_of_the_run_where_it_is_that_of_keras(
    files: list[ImageFile], counted: type[Counted], read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchdigits.engine.pool._CHUNK_FILES", 3)
    with SharedFinder(bundle.PACKAGED, Runtime.KERAS) as finder:
        found = read(files, finder)
    alone = normalise(PAGES, FakeInkFinder(Path()))
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in found]), alone.pixels)
    np.testing.assert_array_equal(np.concatenate([batch.ink for batch in found]), alone.ink)
    assert counted.loaded == 1
    assert multiprocessing.active_children() == []


def read_in_threads(files: list[ImageFile], finder: SharedFinder) -> list[Batch]:
    with Workers(2, finder, processes=False) as workers:
        return list(batches(files, workers, size=99, **SETTINGS))


@pytest.mark.parametrize("read", [read_in_threads, read_in_processes, read_one_by_one])
def test_a_finder_that_cannot_be_opened_ends_the_run_with_its_sentence(
    files: list[ImageFile], read: Any, tmp_path: Path
) -> None:
    broken = bundle_in(tmp_path / "bundle", exported=b"no model", exported_finder=b"no finder").directory
    with (
        SharedFinder(broken, Runtime.LITERT) as finder,
        pytest.raises(BundleError, match=r"LiteRT cannot open the model of the bundle"),
    ):
        read(files, finder)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("read", [read_in_threads, read_in_processes, read_one_by_one])
def test_what_the_finder_of_the_run_meets_ends_the_run_whichever_process_asked(
    files: list[ImageFile], read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeInkFinder):
        def __enter__(self) -> "Broken":
            message = "Keras cannot load the model"
            raise BundleError(message)

    monkeypatch.setattr(module, "InkFinder", Broken)
    with (
        SharedFinder(bundle.PACKAGED, Runtime.KERAS) as finder,
        pytest.raises(BundleError, match="Keras cannot load the model"),
    ):
        read(files, finder)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [False, True])
def test_pages_that_were_read_before_the_finder_failed_come_as_a_last_batch(
    files: list[ImageFile], processes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchdigits.engine.pool._CHUNK_FILES", 1)
    for number in range(6):
        write_png(tmp_path / f"cut_outs/{number}.png", digits()[number])
    small = [item for item in discover([locate(str(tmp_path / "cut_outs"))], outputs=[]) if isinstance(item, ImageFile)]
    broken = bundle_in(tmp_path / "bundle", exported=b"no model", exported_finder=b"no finder").directory
    found: list[Batch] = []

    def collect() -> Iterator[None]:
        with SharedFinder(broken, Runtime.LITERT) as finder, Workers(2, finder, processes=processes) as workers:
            for batch in batches([*small, *files], workers, size=4, **SETTINGS):
                found.append(batch)
                yield

    with pytest.raises(BatchDigitsError, match="LiteRT cannot open"):
        list(collect())
    assert [page.file for batch in found for page in batch.pages] == small
    assert [len(batch.pages) for batch in found] == [4, 2]

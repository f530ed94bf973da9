"""The shared ink finder: loaded when it is asked first, whichever thread asks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.engine import shared_finder as module
from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.inference import bundle
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from tests.fake_model import FakeInkFinder
from tests.sample_pages import digits, on_page

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

"""What the tests of the pipeline share: a stand-in that predicts, bundles that load, and a folder to read."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from batchdigits.engine import local, networks, shared_finder
from batchdigits.inference.bundle import Bundle
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in
from tests.pipeline.runs import DATA, PAGES, predicted
from tests.sample_pages import digits, on_page, write_png, write_tiff


def stand_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(networks, "Predictor", FakePredictor)
    patch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    patch.setattr(local, "can_fork", lambda: True)  # which takes the stand-ins along, whatever was loaded before


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


@pytest.fixture(scope="session")
def surer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that is sure enough of some images for a target error of 0.1%, of others for 0.5%, and of some not."""
    return bundle_in(tmp_path_factory.mktemp("surer") / "bundle", temperature=0.5)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def whole(model: Bundle, mixed: Path) -> bytes:
    """The report of that folder, as CSV."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        return predicted(model, mixed)


@pytest.fixture
def growing(mixed: Path, tmp_path: Path) -> Path:
    """A copy of the mixed folder that a test may change."""
    return Path(shutil.copytree(mixed, tmp_path / "growing"))

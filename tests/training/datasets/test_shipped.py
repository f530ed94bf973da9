import gzip
import hashlib
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from batchdigits.errors import StorageError
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.shipped import NAMES, fingerprint, mnist, pages
from tests.commands import CHECKOUT

LABELS = "t10k-labels-idx1-ubyte.gz"


def test_mnist_has_its_published_halves_and_the_first_test_image_is_a_7() -> None:
    for part, count in (("train", 60_000), ("test", 10_000)):
        images, labels = mnist(part)
        assert (images.shape, images.dtype) == ((count, 28, 28), np.uint8)
        assert (labels.shape, labels.dtype) == ((count,), np.int8)
        assert set(labels.tolist()) == set(range(10))
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mnist"])
def test_the_halves_of_a_set_hold_every_digit_and_no_page_in_common(name: str) -> None:
    halves = {part: pages(name, part) for part in ("train", "test")}
    for found, labels in halves.values():
        assert len(found) == len(labels) > 50
        assert labels.dtype == np.int8
        assert set(labels.tolist()) == set(range(10))
        assert all(page.dtype == np.uint8 and page.ndim == 2 for page in found)
    sums = [{hashlib.sha256(page.tobytes()).digest() for page in found} for found, _ in halves.values()]
    assert sums[0] & sums[1] == set()
    again, labels = pages(name, "test")
    assert labels.tolist() == halves["test"][1].tolist()
    assert all((page == other).all() for page, other in zip(again, halves["test"][0], strict=True))


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of the package in a folder of their own."""
    shutil.copytree(shipped._FOLDER, tmp_path / "data")
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "data")
    return tmp_path / "data"


def test_a_changed_label_in_a_whole_file_is_refused_by_its_sum(copied: Path) -> None:
    data = bytearray(gzip.decompress((copied / "mnist" / LABELS).read_bytes()))
    data[8] = 1  # the first label, which is a 7
    (copied / "mnist" / LABELS).write_bytes(gzip.compress(data))
    with pytest.raises(StorageError, match=r"t10k-labels-idx1-ubyte\.gz of the package is missing or damaged; install"):
        mnist("test")


def test_a_changed_byte_of_a_packed_file_is_refused_wherever_it_is(copied: Path) -> None:
    good = (copied / "mnist" / LABELS).read_bytes()
    for place in range(11, len(good), 97):  # behind the header, whose clock nothing depends on
        data = bytearray(good)
        data[place] ^= 1
        (copied / "mnist" / LABELS).write_bytes(data)
        with pytest.raises(StorageError, match="t10k-labels"):
            mnist("test")


@pytest.mark.parametrize("size", [None, 0, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_and_a_cut_file_are_refused_by_name(name: str, size: int | None, copied: Path) -> None:
    file = next(path for path in sorted((copied / name).glob("*.gz")) if "t10k" in path.name or name != "mnist")
    if size is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(StorageError, match=file.name):
        pages(name, "test")


@pytest.mark.parametrize("name", NAMES)
def test_a_fingerprint_names_the_files_of_a_set_and_their_sums(name: str) -> None:
    sums = fingerprint(name)
    assert len(sums) == (4 if name == "mnist" else 1)
    for file, text in sums.items():
        assert text == hashlib.sha256((shipped._FOLDER / name / file).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_a_set_travels_with_its_attribution_in_the_package(name: str) -> None:
    assert (shipped._FOLDER / name / "ATTRIBUTION.md").read_text(encoding="utf-8")
    configuration = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = configuration["tool"]["setuptools"]["package-data"]["batchdigits.training"]
    root = CHECKOUT / "batchdigits" / "training"
    files = {path for pattern in packed for path in root.glob(pattern)}
    assert set((shipped._FOLDER / name).iterdir()) <= files

import gzip
import hashlib
import io
import shutil
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest

from batchdigits.errors import StorageError
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.shipped import (
    NAMES,
    fingerprint,
    foreign,
    letters,
    mnist,
    movements,
    numbers,
    pages,
)
from batchdigits.training.datasets.simulator.strokes import Movements
from tests.cli_runner import CHECKOUT

LABELS = "t10k-labels-idx1-ubyte.gz"
STROKES = ("pendigits", "unipen", "uji")
FOLDERS = (*NAMES, "omniglot")


def test_mnist_has_its_published_halves_and_the_first_test_image_is_a_7() -> None:
    for part, count in (("train", 60_000), ("test", 10_000)):
        images, labels = mnist(part)
        assert (images.shape, images.dtype) == ((count, 28, 28), np.uint8)
        assert (labels.shape, labels.dtype) == ((count,), np.int8)
        assert set(labels.tolist()) == set(range(10))
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def some_of(moves: Movements) -> Movements:
    """About 400 samples of a set, from all of its writers: to draw all takes longer than to look at them."""
    return moves.take(np.arange(0, len(moves), 1 + len(moves) // 400))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mnist"])
def test_the_halves_of_a_set_hold_every_digit_and_no_page_in_common(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "movements", lambda name, part: some_of(movements(name, part)))
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
            shipped._idx(LABELS.removesuffix(".gz"), header=8)


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


# hands


@pytest.mark.parametrize(("name", "train", "test"), [("pendigits", 35, 9), ("unipen", 170, 36), ("uji", 8, 3)])
def test_the_halves_of_pen_movements_hold_every_digit_and_no_writer_in_common(name: str, train: int, test: int) -> None:
    halves = [movements(name, part) for part in ("train", "test")]
    assert all(set(half.label) == set("0123456789") for half in halves)
    writers = [set(half.writer) for half in halves]
    assert [len(half) for half in writers] == [train, test]
    assert writers[0] & writers[1] == set()
    for half, digits in zip(writers, ("0123456789ab", "cdef"), strict=True):
        assert {hashlib.sha256(writer.encode()).hexdigest()[0] for writer in half} <= set(digits)


def test_pen_movements_are_those_of_the_file_whatever_half_they_are_in() -> None:
    with tarfile.open(shipped._FOLDER / "uji" / "uji_strokes.tar.gz") as archive:
        file = archive.extractfile("uji_strokes/uji_digits.npz")
        assert file is not None
        stored = np.load(io.BytesIO(file.read()))
        arrays = {key: stored[key] for key in stored}
    rows = {part: iter(range(220)) for part in ("train", "test")}
    halves = {part: movements("uji", part) for part in rows}
    for number, label in enumerate(arrays["label"].tolist()):
        part = "test" if f"uji/{arrays['writer'][number]}" in halves["test"].writer else "train"
        row = next(rows[part])
        first, end = arrays["sample"][number : number + 2]
        points = [arrays["xy"][arrays["stroke"][k] : arrays["stroke"][k + 1]] for k in range(first, end)]
        scale = np.ptp(np.concatenate(points), axis=0).max()
        given = halves[part].strokes(row)
        assert halves[part].label[row] == label
        assert [len(stroke) for stroke in given] == [len(stroke) for stroke in points]
        low = np.concatenate(points).min(0)
        assert np.allclose(np.concatenate(given), (np.concatenate(points) - low) / scale, atol=1e-6)
    assert [len(half) for half in halves.values()] == [160, 60]


@pytest.mark.parametrize("name", STROKES)
def test_movements_are_drawn_dark_on_white_whole_and_with_pens_of_3_to_9_percent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = some_of(movements(name, "test"))
    monkeypatch.setattr(shipped, "movements", lambda *_: moves)
    drawn, labels = pages(name, "test")
    assert labels.tolist() == [int(label) for label in moves.label]
    shares = []
    for row, page in enumerate(drawn):
        assert page.shape == (96, 96)
        assert (page[[0, -1]] == 255).all()
        assert (page[:, [0, -1]] == 255).all()
        height, width = (int(np.ptp(np.flatnonzero((page < 128).any(axis)))) + 1 for axis in (1, 0))
        assert max(height, width) in range(60, 75)
        strokes = moves.strokes(row)
        if labels[row] == 1 and len(strokes) == 1:  # of one line that does not cross itself
            length = 64 * float(np.hypot(*np.diff(strokes[0], axis=0).T).sum())
            thick = (1 - page / 255).sum() / (length + 3)
            shares.append(thick / (64 * strokes[0][:, 1].max()))
    assert min(shares) == pytest.approx(0.03, abs=0.02)
    assert max(shares) == pytest.approx(0.09, abs=0.02)
    assert np.ptp(shares) > 0.02


def test_a_block_of_scans_is_in_one_half_with_all_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | bytes, bool]] = []

    def spied(hand: str | bytes, part: str) -> bool:
        asked.append((hand, found := inside(hand, part)))
        return found

    inside = shipped._in
    monkeypatch.setattr(shipped, "_in", spied)
    blocks = {}
    for part in ("train", "test"):
        asked.clear()
        found, labels = numbers(part)
        count = len(pages("cc0_scans", part)[0])
        assert len(found) + count == sum(taken for _, taken in asked)
        assert set(labels.tolist()) == {10, 11, 12, 13, 14, 15}
        blocks[part] = {str(hand) for hand, taken in asked if taken}
    assert blocks["test"] == {"cc0_scans/w01", "cc0_scans/w26"}
    assert blocks["train"] == {f"cc0_scans/w{block}" for block in ("00", "03", "05", "06", 11, 12, 18, 19, 24)}


def test_the_numbers_are_475_scans_dark_on_white() -> None:
    found = [page for part in ("train", "test") for page in numbers(part)[0]]
    assert len(found) == 475
    assert all(128 in page.shape and max(page.shape) <= 129 for page in found)
    assert np.mean([np.median(page) for page in found]) > 200


def test_letters_are_those_that_nobody_takes_for_a_digit_and_their_writers_are_those_of_the_digits() -> None:
    for part, count in (("train", 3300), ("test", 700)):
        found = letters(part)
        assert len(found) > count
        assert {writer.split("/")[0] for writer in found.writer} >= {"uji", "ibm", "val"}
        assert set(found.label) & set("OoDQIliZzSsBbqgGy|/\\UVYLTtJjuv()[]{}<>0123456789") == set()
        assert set(found.label) >= set("AaCcEFHKkMmNnPRrWwXx@#*+=&%?")
        other = {writer for name in STROKES for writer in movements(name, _other(part)).writer}
        assert set(found.writer) & other == set()


def _other(part: str) -> str:
    return {"train": "test", "test": "train"}[part]


def test_letters_of_other_scripts_are_bright_ink_on_0() -> None:
    halves = [foreign(part) for part in ("train", "test")]
    assert [len(half) for half in halves] == [444, 164]
    for page in (page for half in halves for page in half):
        assert page.shape == (105, 105)
        assert set(np.unique(page).tolist()) == {0, 255}
        assert 0.005 < (page > 0).mean() < 0.3


# what is missing or damaged


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "mnist"])
def test_one_changed_byte_of_an_archive_is_refused(name: str, copied: Path) -> None:
    (file,) = (copied / name).glob("*.tar.gz")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StorageError, match=rf"^The file {file.name} of the package is missing or damaged; install"):
        foreign("test") if name == "omniglot" else pages(name, "test")


def test_without_the_folder_of_unipen_its_name_is_refused_and_all_else_works(copied: Path) -> None:
    shutil.rmtree(copied / "unipen")
    sentence = r"^The set unipen was taken out of this package, its folder is gone; name another: mnist, .*cc0_scans\.$"
    for ask in (lambda: pages("unipen", "test"), lambda: movements("unipen", "train"), lambda: fingerprint("unipen")):
        with pytest.raises(StorageError, match=sentence):
            ask()
    assert not shipped.has("unipen")
    for name in NAMES:
        if name != "unipen":
            assert shipped.has(name)
            assert len(pages(name, "test")[0]) > 50
    assert {writer.split("/")[0] for writer in letters("train").writer} == {"uji"}
    assert len(letters("test")) > 100
    assert len(foreign("test")) == 164


# what travels


@pytest.mark.parametrize("name", FOLDERS)
def test_a_fingerprint_names_the_files_of_a_set_and_their_sums(name: str) -> None:
    sums = fingerprint(name)
    assert len(sums) == (4 if name == "mnist" else 1)
    for file, text in sums.items():
        assert text == hashlib.sha256((shipped._FOLDER / name / file).read_bytes()).hexdigest()


def test_the_expression_of_licences_and_the_readme_name_those_of_all_sets() -> None:
    configuration = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    assert configuration["project"]["license"] == "MIT AND CC-BY-SA-3.0 AND CC-BY-4.0 AND CC0-1.0"
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    licences = readme.partition("## Licences")[2]
    assert {path.name for path in shipped._FOLDER.iterdir()} == set(FOLDERS)
    for name in FOLDERS:
        assert name in licences.lower()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_travels_with_its_attribution_in_the_package(name: str) -> None:
    assert (shipped._FOLDER / name / "ATTRIBUTION.md").read_text(encoding="utf-8")
    texts = {path.name for path in (shipped._FOLDER / name).iterdir()} & {"LICENSE", "LICENCE.txt"}
    assert len(texts) == 1 or name in ("mnist", "optdigits")  # whose licences are named by their address
    configuration = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = configuration["tool"]["setuptools"]["package-data"]["batchdigits.training"]
    root = CHECKOUT / "batchdigits" / "training"
    files = {path for pattern in packed for path in root.glob(pattern)}
    assert set((shipped._FOLDER / name).iterdir()) <= files

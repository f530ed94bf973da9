"""Read the labelled data that travel with the package: digits, and what is no digit, by name and half.

Each set has a training half and a test half, so that what is measured was never learnt. MNIST's are its own; of
hwd1000 and optdigits, whose writers are not told, the test half is made of the files whose sha256 starts with c to f;
of all others it is made of the hands whose name's does, so that no hand is on both sides.
"""

import csv
import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import StorageError
from batchdigits.records import GreyImage, Labels
from batchdigits.settings import DecodingSettings
from batchdigits.storage.local import file_sha256
from batchdigits.training.datasets.simulator import strokes
from batchdigits.training.datasets.simulator.strokes import Movements, Pen

MNIST, UNIPEN, CC0_SCANS = "mnist", "unipen", "cc0_scans"
NAMES = (MNIST, "hwd1000", "optdigits", "pendigits", UNIPEN, "uji", CC0_SCANS)
"""The sets of digits, by the names under which options take them."""


class _Archive(NamedTuple):
    file: str
    sha256: str
    """As it came with the project."""


_FOLDER = Path(__file__).parents[1] / "data"
_MNIST_FILES = {"train": "train", "test": "t10k"}
_MNIST_MD5 = {  # of the unpacked files, as LeCun and Cortes published them
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_OMNIGLOT = "omniglot"
_ARCHIVES = {
    "hwd1000": _Archive("hwd1000.tar.gz", "26688e66cd46780d72855543b8d845e0545750b557741999a655a617c19fffb8"),
    "optdigits": _Archive("optdigits.tar.gz", "33036d3ee2e49f69d9f685113d0fd51051a575c3c6f18cfd7e4a4710221b6e65"),
    "pendigits": _Archive(
        "pendigits_strokes.tar.gz", "c76183e0c4b2fd9381bc24342b7052cddd6d7f4de30ef6b8acc851cc9b97b236"
    ),
    UNIPEN: _Archive("unipen_strokes.tar.gz", "eb8bddddfbcd649d25af1fb87d6a1913ea5d61af91d9278b88bc4988b548ab5a"),
    "uji": _Archive("uji_strokes.tar.gz", "9613bf001d8378b4b912ad9f2eaf59d2a0786311a0e12398ac94f09b31bdacea"),
    CC0_SCANS: _Archive("cc0_scans.tar.gz", "e712ba8281462a44ca8b4a8ff4d1a103cf36d461697d1e3da4bb62f681785c70"),
    _OMNIGLOT: _Archive(
        "omniglot_not_digits.tar.gz", "97c9b711c7723cb9383808450c62631b764907551c41e49e5604d4fca689bf97"
    ),
}
_DIGITS_OF = {"pendigits": "pendigits.npz", UNIPEN: "unipen_digits.npz", "uji": "uji_digits.npz"}
_LETTERS_OF = {UNIPEN: "unipen_not_digits.npz", "uji": "uji_letters.npz"}
_LIKE_DIGITS = frozenset("OoDQIliZzSsBbqgGy|/\\UuVvYLTtJj()[]{}<>")
_TRAINING_DIGITS = frozenset("0123456789ab")  # first hexadecimal digits of the training half
_SIDE, _DRAWN_SIDE = 96, 64  # pixels of the page on which movements are drawn, and of the digit's longer side
_PEN_SHARES = 0.03, 0.09  # of the digit's height


def pages(name: str, part: str) -> tuple[list[GreyImage], Labels]:
    """Read half of a set of digits: N pages uint8[H, W], and int8[N].

    Pen movements are drawn, each always with the same pen: dark on a white page.

    Args:
        name: One of `NAMES`.
        part: `train` or `test`.

    Raises:
        StorageError: A file of the package is missing or damaged, or its set was taken out.
    """
    if name == MNIST:
        images, labels = mnist(part)
        return list(images), labels
    if name in _DIGITS_OF:
        moves = movements(name, part)
        return [_drawn(moves, row) for row in range(len(moves))], np.array(moves.label, np.int8)
    return _scans(name, part)


def movements(name: str, part: str) -> Movements:
    """Read half of a set of digits as pen movements; N labels from `0` to `9`.

    Args:
        name: `pendigits`, `unipen` or `uji`.
        part: `train` or `test`.

    Raises:
        StorageError: A file of the package is missing or damaged, or its set was taken out.
    """
    return _movements(name, _DIGITS_OF[name], part)


def letters(part: str) -> Movements:
    """Read letters and symbols that nobody takes for a digit, as pen movements; without unipen's where it is not there.

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    found = [_movements(name, file, part) for name, file in _LETTERS_OF.items() if has(name)]
    both = strokes.join(found)
    return both.take(np.array([row for row, label in enumerate(both.label) if label not in _LIKE_DIGITS], np.intp))


def foreign(part: str) -> list[GreyImage]:
    """Read letters of other scripts, none of which looks like a digit: uint8[105, 105], bright ink on 0.

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    files = [(path, data) for path, data in _members(_OMNIGLOT) if path.endswith(".png")]
    hands = [f"{_OMNIGLOT}/{path.split('/')[1]}/{Path(path).stem.split('_')[-1]}" for path, _ in files]
    return [255 - page for hand, (_, data) in zip(hands, files, strict=True) if _in(hand, part) for page in _grey(data)]


def numbers(part: str) -> tuple[list[GreyImage], NDArray[np.int8]]:
    """Read scanned numbers: N pages uint8[H, W] of about 128, dark on white, and int8[N], 10 to 15.

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    files = {Path(path).name: data for path, data in _members(CC0_SCANS) if "/numbers/" in path}
    found: list[GreyImage] = []
    said: list[int] = []
    for row in csv.DictReader(io.StringIO(files["labels.csv"].decode())):
        if _in(_block(row["filename"]), part):
            for page in _grey(files[row["filename"]]):
                found.append(page)
                said.append(int(row["text"]))
    return found, np.array(said, np.int8)


def has(name: str) -> bool:
    """Tell whether the folder of a set is in the package: unipen's may have been taken out."""
    return (_FOLDER / name).is_dir()


def fingerprint(name: str) -> dict[str, str]:
    """Name the files of a set by the sha256 of their bytes.

    Raises:
        StorageError: The set was taken out.
    """
    _require(name)
    return {path.name: file_sha256(path) for path in sorted((_FOLDER / name).glob("*.gz"))}


def mnist(part: str) -> tuple[NDArray[np.uint8], Labels]:
    """Read half of MNIST as it is: uint8[N, 28, 28] and int8[N].

    Args:
        part: `train` (60,000 images) or `test` (10,000).

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    stem = _MNIST_FILES[part]
    images = _idx(f"{stem}-images-idx3-ubyte", header=16).reshape(-1, 28, 28)
    return images, _idx(f"{stem}-labels-idx1-ubyte", header=8).astype(np.int8)


def _idx(name: str, *, header: int) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(_read(MNIST, f"{name}.gz"))
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(_damaged(f"{name}.gz")) from error
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != _MNIST_MD5[name]:
        raise StorageError(_damaged(f"{name}.gz"))
    return np.frombuffer(data, np.uint8, offset=header)


def _scans(name: str, part: str) -> tuple[list[GreyImage], Labels]:
    """Read the pictures `…/DIGIT/NAME.png` or `.jpg` of an archive, in the order of their names."""
    found: list[GreyImage] = []
    labels: list[int] = []
    for path, data in _members(name):
        digit = re.search(r"/([0-9])/[^/]+$", path)
        if digit and _in(_block(path) if name == CC0_SCANS else data, part):
            for page in _grey(data):
                found.append(page)
                labels.append(int(digit[1]))
    return found, np.array(labels, np.int8)


def _movements(name: str, file: str, part: str) -> Movements:
    """Read half of a file of pen movements."""
    data = next(data for path, data in _members(name) if Path(path).name == file)
    whole = strokes.load(io.BytesIO(data))
    return whole.take(np.array([row for row, writer in enumerate(whole.writer) if _in(writer, part)], np.intp))


def _drawn(moves: Movements, row: int) -> GreyImage:
    """Draw one sample with a round pen in the middle of a white page."""
    rng = np.random.default_rng(row)
    lines = moves.strokes(row)
    height = _DRAWN_SIDE * max(float(line[:, 1].max()) for line in lines)
    ink = strokes.draw(lines, _DRAWN_SIDE, Pen(max(1.0, rng.uniform(*_PEN_SHARES) * height)), rng)
    page = np.zeros((_SIDE, _SIDE), np.float32)
    top, left = (_SIDE - ink.shape[0]) // 2, (_SIDE - ink.shape[1]) // 2
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.asarray(np.rint(255 * (1 - page)), np.uint8)


def _grey(data: bytes) -> Iterator[GreyImage]:
    """Decode the pages of a picture."""
    return (page.grey for page in decode(data, DecodingSettings()) if isinstance(page, Page))


def _block(path: str) -> str:
    """Name the hand of one of `cc0_scans`' pictures, whose names begin with their block."""
    return f"{CC0_SCANS}/{Path(path).name.split('_')[0]}"


def _in(hand: str | bytes, part: str) -> bool:
    """Tell whether a hand's name, or a file whose hand is not known, belongs to a half."""
    data = hand.encode() if isinstance(hand, str) else hand
    return (hashlib.sha256(data).hexdigest()[0] in _TRAINING_DIGITS) == (part == "train")


def _members(name: str) -> list[tuple[str, bytes]]:
    """Unpack an archive: the path in it of each file and what the file holds, in the order of their paths."""
    data = _read(name, _ARCHIVES[name].file)
    if hashlib.sha256(data).hexdigest() != _ARCHIVES[name].sha256:
        raise StorageError(_damaged(_ARCHIVES[name].file))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [(member.name, archive.extractfile(member)) for member in archive]
        return sorted((path, file.read()) for path, file in files if file)


def _read(name: str, file: str) -> bytes:
    _require(name)
    try:
        return (_FOLDER / name / file).read_bytes()
    except OSError as error:
        raise StorageError(_damaged(file)) from error


def _require(name: str) -> None:
    if not has(name):
        others = ", ".join(other for other in NAMES if has(other))
        message = f"The set {name} was taken out of this package, its folder is gone; name another: {others}."
        raise StorageError(message)


def _damaged(name: str) -> str:
    return f"The file {name} of the package is missing or damaged; install batchdigits anew."

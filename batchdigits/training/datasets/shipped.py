"""Read the labelled data that travel with the package as grey pages and labels.

Each set has a training half and a test half. MNIST's are its own; of the other sets the test half is made of the
files whose sha256 starts with c to f.
"""

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import Page, decode
from batchdigits.errors import StorageError
from batchdigits.records import GreyImage, Labels
from batchdigits.settings import DecodingSettings
from batchdigits.storage.local import file_sha256

MNIST = "mnist"
NAMES = (MNIST, "hwd1000", "optdigits")
"""The sets, by the names under which options take them."""

_FOLDER = Path(__file__).parents[1] / "data"
_MNIST_FILES = {"train": "train", "test": "t10k"}
_MNIST_MD5 = {  # of the unpacked files, as LeCun and Cortes published them
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_ARCHIVE_SHA256 = {  # of the archives as they came with the project
    "hwd1000": "26688e66cd46780d72855543b8d845e0545750b557741999a655a617c19fffb8",
    "optdigits": "33036d3ee2e49f69d9f685113d0fd51051a575c3c6f18cfd7e4a4710221b6e65",
}
_TRAINING_DIGITS = frozenset("0123456789ab")  # first hexadecimal digits of the training half


def pages(name: str, part: str) -> tuple[list[GreyImage], Labels]:
    """Read half of a set: N pages uint8[H, W], and int8[N].

    Args:
        name: One of `NAMES`.
        part: `train` or `test`.

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    if name == MNIST:
        images, labels = mnist(part)
        return list(images), labels
    return _archive(name, part)


def fingerprint(name: str) -> dict[str, str]:
    """Name the files of a set by the sha256 of their bytes."""
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
        data = gzip.decompress(_read(_FOLDER / MNIST / f"{name}.gz"))
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(_damaged(f"{name}.gz")) from error
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != _MNIST_MD5[name]:
        raise StorageError(_damaged(f"{name}.gz"))
    return np.frombuffer(data, np.uint8, offset=header)


def _archive(name: str, part: str) -> tuple[list[GreyImage], Labels]:
    """Read the files `…/DIGIT/NAME.png` of an archive, in the order of their names."""
    path = _FOLDER / name / f"{name}.tar.gz"
    if hashlib.sha256(_read(path)).hexdigest() != _ARCHIVE_SHA256[name]:
        raise StorageError(_damaged(path.name))
    found: list[GreyImage] = []
    labels: list[int] = []
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            file = archive.extractfile(member) if member.name.endswith(".png") else None
            if file is None:
                continue
            data = file.read()
            training = hashlib.sha256(data).hexdigest()[0] in _TRAINING_DIGITS
            page = decode(data, DecodingSettings())[0]
            if training == (part == "train") and isinstance(page, Page):
                found.append(page.grey)
                labels.append(int(Path(member.name).parent.name))
    return found, np.array(labels, np.int8)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(_damaged(path.name)) from error


def _damaged(name: str) -> str:
    return f"The file {name} of the package is missing or damaged; install batchdigits anew."

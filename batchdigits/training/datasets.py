"""Labelled images in, from MNIST's files, folders or a CSV; normalised digits with their labels out.

A source is `mnist`, a folder with a sub-folder for each digit, or a CSV file with the columns `path` and `label`.
All images pass through the same decoding and normalisation as those of the main job.
"""

import gzip
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchdigits.batches import batches
from batchdigits.errors import StorageError, UsageError, shown
from batchdigits.files import file_sha256
from batchdigits.images import ImageFile, discover
from batchdigits.normalisation import InkImages, InkMeasures, normalise
from batchdigits.settings import DecodingSettings, NormalisationSettings

Labels = NDArray[np.int8]  # [N], 0 to 9

log = logging.getLogger(__name__)

MNIST = "mnist"
"""The name of the source that ships with the package."""

_MNIST_FOLDER = Path(__file__).parent / "data" / "mnist"
_MNIST_FILES = {"train": "train", "test": "t10k"}
_MNIST_MD5 = {  # of the unpacked files, as LeCun and Cortes published them
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_STACK = 500  # pages that are normalised at a time
_READING = 256  # images a batch, and workers, of labelled files
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Labelled:
    """N labelled images, normalised, and those that could not be read."""

    names: list[str]
    """How messages call each image."""
    pixels: InkImages
    """uint8[N, 28, 28]."""
    ink: InkMeasures
    """float32[N, M]."""
    labels: Labels
    """int8[N]."""
    unread: list[tuple[str, str, int]]
    """Name, fault and label of each image that could not be read."""

    def __len__(self) -> int:
        """Count the images that were read."""
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Keep some rows, in the order given, and nothing of what was not read."""
        names = [self.names[row] for row in rows]
        return Labelled(names, self.pixels[rows], self.ink[rows], self.labels[rows], [])


def read(source: str, normalisation: NormalisationSettings, *, part: str) -> Labelled:
    """Read one source.

    Args:
        source: `mnist`, a folder or a CSV file.
        normalisation: What the model is, or will be, trained behind.
        part: `train` or `test`: the half of MNIST. Folders and CSV files have no halves.

    Raises:
        UsageError: A label is no digit, or a CSV file lacks its columns.
        StorageError: The source, or an image that a CSV file names, does not exist.
    """
    if source == MNIST:
        return _read_mnist(part, normalisation)
    path = Path(source)
    if path.is_dir():
        return _read_files(_folder(path), normalisation)
    if not path.is_file():
        message = f"The labelled data {shown(source)} do not exist; name a folder, a CSV file, or {MNIST}."
        raise StorageError(message)
    return _read_files(_csv(path), normalisation)


def join(parts: Sequence[Labelled]) -> Labelled:
    """Put sources one after another."""
    return Labelled(
        [name for part in parts for name in part.names],
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.ink for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [unread for part in parts for unread in part.unread],
    )


def split(data: Labelled, *, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split off a validation part at random: the training part and the validation part."""
    order = np.random.default_rng(seed).permutation(len(data))
    held = round(share * len(data))
    return data.take(order[held:]), data.take(order[:held])


def fingerprint(source: str) -> dict[str, str]:
    """Name what a source holds by sha256: of MNIST's files, of a CSV file, or of a folder's list of files and sums."""
    if source == MNIST:
        return {path.name: file_sha256(path) for path in sorted(_MNIST_FOLDER.glob("*.gz"))}
    path = Path(source)
    if path.is_file():
        return {path.name: file_sha256(path)}
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {file_sha256(file)}\n".encode(errors="surrogateescape"))
    return {path.name: digest.hexdigest()}


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
        data = gzip.decompress((_MNIST_FOLDER / f"{name}.gz").read_bytes())
    except (OSError, EOFError) as error:
        message = f"The MNIST file {name}.gz of the package cannot be read: {error}; install batchdigits anew."
        raise StorageError(message) from error
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != _MNIST_MD5[name]:
        message = f"The MNIST file {name}.gz of the package is damaged; install batchdigits anew."
        raise StorageError(message)
    return np.frombuffer(data, np.uint8, offset=header)


def _read_mnist(part: str, normalisation: NormalisationSettings) -> Labelled:
    pages, labels = mnist(part)
    stacks = [normalise(list(pages[start : start + _STACK]), normalisation) for start in range(0, len(pages), _STACK)]
    return Labelled(
        [f"{MNIST} {part} {number}" for number in range(len(pages))],
        np.concatenate([stack.pixels for stack in stacks]),
        np.concatenate([stack.ink for stack in stacks]),
        labels,
        [],
    )


def _read_files(files: Iterable[tuple[ImageFile, int]], normalisation: NormalisationSettings) -> Labelled:
    """Decode and normalise labelled files; of a file with several pages the first counts."""
    label_of: dict[str, int] = {}

    def unlabelled() -> Iterator[ImageFile]:
        for file, label in files:
            label_of[file.path] = label
            yield file

    parts = []
    for batch in batches(
        unlabelled(), size=_READING, workers=_WORKERS, decoding=DecodingSettings(), normalisation=normalisation
    ):
        first = np.array([row for row, page in enumerate(batch.pages) if page.number == 1], np.intp)
        pages = [batch.pages[row].file for row in first]
        parts.append(
            Labelled(
                [file.name for file in pages],
                batch.pixels[first],
                batch.ink[first],
                np.array([label_of[file.path] for file in pages], np.int8),
                [
                    (page.file.name, fault.detail, label_of[page.file.path])
                    for page, fault in batch.faults
                    if page.number == 1
                ],
            )
        )
    if not parts:
        message = "The labelled data hold no image; expected a sub-folder for each digit, or a CSV of path,label."
        raise UsageError(message)
    return join(parts)


def _folder(root: Path) -> Iterator[tuple[ImageFile, int]]:
    """Give the images of a folder that has a sub-folder for each digit; others are left out with a warning."""
    digits = [folder for digit in range(10) if (folder := root / str(digit)).is_dir()]
    if not digits:
        message = f"The labelled folder {shown(str(root))} has no sub-folder named 0 to 9; sort its images into such."
        raise UsageError(message)
    for other in sorted(set(root.iterdir()) - set(digits)):
        if other.is_dir():
            log.warning("The folder %s is left out: its name is not a digit from 0 to 9.", shown(str(other)))
    for folder in digits:
        for item in discover([str(folder)], outputs=[]):
            if isinstance(item, ImageFile):
                yield item, int(folder.name)


def _csv(path: Path) -> Iterator[tuple[ImageFile, int]]:
    """Give the images that a CSV of path,label names; relative paths start at the CSV's folder."""
    import pandas as pd

    name = shown(str(path))
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        message = f"The label file {name} is not a CSV file in UTF-8: {error}."
        raise UsageError(message) from error
    missing = {"path", "label"} - set(table.columns)
    if missing:
        message = f"The label file {name} lacks the column {' and '.join(sorted(missing))}; expected path,label."
        raise UsageError(message)
    wrong = table.index[~table["label"].str.fullmatch("[0-9]")]
    if len(wrong):
        message = (
            f"The label file {name} has labels that are no digit from 0 to 9: {table['label'][wrong[0]]!r} in row "
            f"{wrong[0] + 1}{f', and {len(wrong) - 1} more' if len(wrong) > 1 else ''}; mend or remove these rows."
        )
        raise UsageError(message)
    for image, label in zip(table["path"], table["label"], strict=True):
        for item in discover([str(path.parent / image)], outputs=[]):
            if isinstance(item, ImageFile):
                yield item, int(label)

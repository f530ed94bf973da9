"""Read labelled images from the package, folders, a CSV or an answered report as normalised digits.

A source is a set that ships with the package (`mnist`), a folder with a sub-folder for each digit, or a CSV file
with the columns `path` and `label`, and `page` where files have several. All images pass through the same decoding
and normalisation as those of the main job.
"""

import glob
import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.pool import chunks
from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.engine.worker import Normalised, decoded, keep_freed_memory, normalised
from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.ledger.answers import answered, has_answers
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import ImageFile, InkImages, InkMeasures, Labels, sums
from batchdigits.settings import DecodingSettings, NormalisationSettings
from batchdigits.sources.discovery import discover
from batchdigits.storage.local import file_sha256
from batchdigits.storage.reading import read_all
from batchdigits.storage.urls import locate, refuse
from batchdigits.training.datasets import shipped

PageLabels = list[tuple[int, int]]  # of one file: page, from 1, and label

log = logging.getLogger(__name__)

_STACK = 500  # pages that are normalised at a time
_WORKERS = 2
_MOST_NAMED = 3  # files of which pages are left out


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
    sha256: list[str]
    """Of each image's file; empty for the sets of the package."""

    def __len__(self) -> int:
        """Count the images that were read."""
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Keep some rows, in the order given, and nothing of what was not read."""
        names = [self.names[row] for row in rows]
        sums = [self.sha256[row] for row in rows]
        return Labelled(names, self.pixels[rows], self.ink[rows], self.labels[rows], [], sums)


def read(source: str, network: SharedFinder, normalisation: NormalisationSettings, *, part: str) -> Labelled:
    """Read one source.

    Args:
        source: One of `shipped.NAMES`, a folder, a CSV file, or a report whose ledger is beside it.
        network: The ink finder that the model reads, or will read, behind.
        normalisation: What the model is, or will be, trained behind.
        part: `train` or `test`: the half of a shipped set. Folders and CSV files have no halves.

    Raises:
        UsageError: A label is no digit, or a CSV file lacks its columns.
        StorageError: The source, or an image that a CSV file names, does not exist.
    """
    if source in shipped.NAMES:
        return _read_shipped(source, part, network, normalisation)
    refuse(source, "Labelled data")
    path = Path(source)
    if path.is_dir():
        return _read_files(_folder(path), network, normalisation)
    if has_answers(path):
        return _read_files(_answered(path), network, normalisation)
    if not path.is_file():
        names = ", ".join(shipped.NAMES)
        message = f"The labelled data {escaped(source)} do not exist; name a folder, a CSV file, or one of {names}."
        raise StorageError(message)
    return _read_files(_csv(path), network, normalisation)


def join(parts: Sequence[Labelled]) -> Labelled:
    """Put sources one after another."""
    return Labelled(
        [name for part in parts for name in part.names],
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.ink for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [unread for part in parts for unread in part.unread],
        [text for part in parts for text in part.sha256],
    )


LEFT_OUT = ("cc0_scans", "uji", "unipen", "pendigits")
"""The sets of the package whose test halves are by writers that no model of this program learns from."""


def left_out(network: SharedFinder, normalisation: NormalisationSettings) -> Labelled:
    """Read those digits of the package that are by writers left out of training, of whatever sets are there.

    Raises:
        StorageError: A file of the package is damaged.
    """
    parts = [_read_shipped(name, "test", network, normalisation) for name in LEFT_OUT if shipped.has(name)]
    return join(parts)


def inked(data: Labelled) -> Labelled:
    """Leave out what cannot teach: pages without ink, and what was not read."""
    return data.take(np.flatnonzero(data.ink[:, 0] > 0))


def split(data: Labelled, *, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Split off a validation part at random.

    Args:
        data: All images.
        share: Of these, 0 to 1, that validate.
        seed: Of the order.

    Returns:
        The training part and the validation part.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    holdout = round(share * len(data))
    return data.take(order[holdout:]), data.take(order[:holdout])


def fingerprint(source: str) -> dict[str, str]:
    """Name what a source holds by sha256: a shipped set's files, a CSV file, or a folder's list of files and sums."""
    if source in shipped.NAMES:
        return shipped.fingerprint(source)
    refuse(source, "Labelled data")
    path = Path(source)
    if path.is_file():
        return {path.name: file_sha256(path)}
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {file_sha256(file)}\n".encode(errors="surrogateescape"))
    return {path.name: digest.hexdigest()}


def _read_shipped(name: str, part: str, network: SharedFinder, normalisation: NormalisationSettings) -> Labelled:
    pages, labels = shipped.pages(name, part)
    stacks = [
        normalise(pages[start : start + _STACK], network, normalisation) for start in range(0, len(pages), _STACK)
    ]
    return Labelled(
        [f"{name} {part} {number}" for number in range(len(pages))],
        np.concatenate([stack.pixels for stack in stacks]),
        np.concatenate([stack.ink for stack in stacks]),
        labels,
        [],
        [""] * len(pages),
    )


def _read_files(
    files: Iterable[tuple[ImageFile, PageLabels]], network: SharedFinder, normalisation: NormalisationSettings
) -> Labelled:
    """Decode and normalise the labelled pages of files; others are left out, with a warning.

    Raises:
        UsageError: There is none, or a page is labelled twice.
    """
    label_of: dict[tuple[str, int], int] = {}
    met: set[tuple[str, int]] = set()
    unlabelled: dict[str, int] = {}  # pages, by the file that has them

    def labelled() -> Iterator[ImageFile]:
        for file, labels in files:
            for page, label in labels:
                if (file.path, page) in label_of:
                    message = f"Page {page} of {escaped(file.name)} is labelled twice; keep one label a page."
                    raise UsageError(message)
                label_of[file.path, page] = label
            yield file

    parts = []
    for chunk, found in _read(labelled(), network, normalisation):
        sums_of = sums(found.pages)
        read = np.cumsum(~found.pages["fault"]) - 1  # the place of a row among those without a fault
        rows, unread = [], []
        for row, page in enumerate(found.pages):
            file, number = chunk[page["file"]], int(page["number"])
            met.add((file.path, number))
            if (file.path, number) not in label_of:
                unlabelled[file.name] = unlabelled.get(file.name, 0) + 1
            elif page["fault"]:
                unread.append((file.name, found.faults[row].detail, label_of[file.path, number]))
            else:
                name = file.name if number == 1 else f"{file.name} page {number}"
                rows.append((row, name, label_of[file.path, number]))
        parts.append(
            Labelled(
                [name for _, name, _ in rows],
                found.pixels[[read[row] for row, *_ in rows]],
                found.pages["ink"][[row for row, *_ in rows]],
                np.array([label for *_, label in rows], np.int8),
                unread,
                [sums_of[row] for row, *_ in rows],
            )
        )
    if unlabelled:
        names = [f"{escaped(name)} ({count})" for name, count in sorted(unlabelled.items())]
        log.warning(
            "Pages without a label are left out, of %d files: %s%s. A label file with a column page labels each.",
            len(names),
            ", ".join(names[:_MOST_NAMED]),
            " and others" if len(names) > _MOST_NAMED else "",
        )
    if parts:  # a page that its file does not have is not forgotten
        parts[-1].unread.extend(
            (path, f"it has no page {page}", label)
            for (path, page), label in label_of.items()
            if (path, page) not in met
        )
    if not parts:
        message = "The labelled data hold no image; expected a sub-folder for each digit, or a CSV of path,label."
        raise UsageError(message)
    return join(parts)


def _read(
    files: Iterator[ImageFile], network: SharedFinder, settings: NormalisationSettings
) -> Iterator[tuple[list[ImageFile], Normalised]]:
    """Read files in threads, a chunk at a time, in their order."""
    limits = DecodingSettings()

    def normalised_chunk(chunk: list[ImageFile]) -> tuple[list[ImageFile], Normalised]:
        whole = read_all([(file.path, file.size_bytes, 0, 0, 0) for file in chunk], limits.max_bytes)
        every = [decoded(file, data, limits) for file, data in zip(chunk, whole, strict=True)]
        return chunk, normalised(every, network, settings)

    cv2.setNumThreads(1)  # ours are the threads
    keep_freed_memory()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="decode") as pool:
        yield from pool.map(normalised_chunk, chunks(files))


def _folder(root: Path) -> Iterator[tuple[ImageFile, PageLabels]]:
    """Give the images of a folder that has a sub-folder for each digit; others are left out with a warning."""
    digits = [folder for digit in range(10) if (folder := root / str(digit)).is_dir()]
    if not digits:
        message = (
            f"The labelled folder {escaped(str(root))} has no sub-folder named 0 to 9; sort its images into such, or "
            "name a CSV of path,label, or a report that people answered."
        )
        raise UsageError(message)
    for other in sorted(set(root.iterdir()) - set(digits)):
        if other.is_dir():
            log.warning("The folder %s is left out: its name is not a digit from 0 to 9.", escaped(str(other)))
    for folder in digits:
        for item in discover([locate(str(folder))], outputs=[]):
            if isinstance(item, ImageFile):
                yield item._replace(name=f"{folder.name}/{item.name}"), [(1, int(folder.name))]


def _answered(report: Path) -> Iterator[tuple[ImageFile, PageLabels]]:
    """Give the images of a report that people answered with a digit, and that are still what they were."""
    found = answered(report)
    digits = [page for page in found if page.answer.isdigit()]
    if not digits:
        message = (
            f"The ledger of the report {escaped(str(report))} holds no answer that is a digit; answer some images "
            "first, and take the answers in with batchdigits correct."
        )
        raise UsageError(message)
    gone = 0
    for path, pages in itertools.groupby(digits, key=lambda page: page.path):
        known = list(pages)
        if not os.path.isfile(path) or file_sha256(Path(path)) != known[0].sha256:  # noqa: PTH113
            gone += len(known)
            continue
        for item in discover([locate(glob.escape(path))], outputs=[]):
            if isinstance(item, ImageFile):
                yield item, [(page.page, int(page.answer)) for page in known]
    log.info(
        "%s: %d answers, of which %d name no digit and teach nothing, and %d are about files that are gone or changed.",
        escaped(str(report)),
        len(found),
        len(found) - len(digits),
        gone,
    )


def _csv(path: Path) -> Iterator[tuple[ImageFile, PageLabels]]:
    """Give the images that a CSV of path,label names; relative paths start at the CSV's folder.

    A column `page` says which page a row is of; without it, it is the first.
    """
    import pandas as pd

    name = escaped(str(path))
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        message = f"The label file {name} is not a CSV file in UTF-8: {reason}."
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
    table = table if "page" in table else table.assign(page="1")
    wrong = table.index[~table["page"].str.fullmatch("[1-9][0-9]{0,8}")]
    if len(wrong):
        message = f"The label file {name} has a page that is no number from 1: {table['page'][wrong[0]]!r}; mend it."
        raise UsageError(message)
    for image, rows in table.groupby("path", sort=False):
        labels = list(zip(rows["page"].astype(int), rows["label"].astype(int), strict=True))
        refuse(str(image), f"An image that the label file {name} names")
        if (path.parent / str(image)).is_dir():
            message = f"The label file {name} labels the folder «{escaped(str(image))}»; name one image in each row."
            raise UsageError(message)
        for item in discover([locate(str(path.parent / str(image)))], outputs=[]):
            if isinstance(item, ImageFile):
                yield item, labels

"""Image files in; batches of normalised pixels and of faults out, in the order of the files.

The only pool of decoding workers and the only queue. Workers take files in chunks: they read, decode and normalise
a chunk as one stack. What waits to be predicted is bounded, so a fast disk does not fill the memory.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from batchdigits.decoding import Page, decode, read
from batchdigits.errors import Fault
from batchdigits.images import ImageFile
from batchdigits.normalisation import InkImages, InkMeasures, normalise
from batchdigits.settings import DecodingSettings, NormalisationSettings

_CHUNK_FILES = 256  # one future per small file is slower than no threads
_CHUNK_BYTES = 16 * 2**20  # a chunk of photos stays small enough to be held decoded, a few times over


@dataclass(frozen=True, slots=True)
class SeenPage:
    """Where one row of a batch comes from."""

    file: ImageFile
    """The file."""
    number: int
    """The page in the file, from 1."""
    width: int | None
    """Pixels as stored, after EXIF rotation; None where a fault hides it."""
    height: int | None
    """Pixels as stored, after EXIF rotation; None where a fault hides it."""
    sha256: str
    """Of the file's own bytes, hexadecimal; empty where they could not be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages that can be predicted together, and the faults met on the way to them."""

    pages: list[SeenPage]
    """`pages[i]` is `pixels[i]` and `ink[i]`."""
    pixels: InkImages
    """uint8[N, 28, 28]."""
    ink: InkMeasures
    """float32[N, M]."""
    faults: list[tuple[SeenPage, Fault]]
    """Pages without pixels."""


def batches(
    files: Iterable[ImageFile],
    *,
    size: int,
    workers: int,
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
) -> Iterator[Batch]:
    """Read, decode and normalise files in worker threads.

    Args:
        files: Consumed as they are needed.
        size: Pages a batch, at most; one that is full of faults, or the last one, has fewer.
        workers: Threads.
        decoding: Limits of decoding.
        normalisation: What the model was trained behind.

    Yields:
        Batches; every page of every file stands in exactly one of them, once.
    """
    cv2.setNumThreads(1)  # the workers are the threads
    waiting = _empty()
    for chunk in _prepared(_chunks(files), workers, decoding, normalisation):
        waiting = _joined(waiting, chunk)
        while max(len(waiting.pages), len(waiting.faults)) >= size:
            batch, waiting = _split(waiting, size)
            yield batch
    if waiting.pages or waiting.faults:
        yield waiting


def prepare(files: Iterable[ImageFile], decoding: DecodingSettings, normalisation: NormalisationSettings) -> Batch:
    """Read, decode and normalise a few files as one stack, in this thread."""
    pages: list[SeenPage] = []
    greys = []
    faults: list[tuple[SeenPage, Fault]] = []
    for file in files:
        data = read(file.path, file.size_bytes, decoding)
        if isinstance(data, Fault):
            faults.append((SeenPage(file, 1, data.width, data.height, ""), data))
            continue
        sha256 = hashlib.sha256(data).hexdigest()
        for number, page in enumerate(decode(data, decoding, file.ending), 1):
            seen = SeenPage(file, number, page.width, page.height, sha256)
            if isinstance(page, Page):
                pages.append(seen)
                greys.append(page.grey)
            else:
                faults.append((seen, page))
    normalised = normalise(greys, normalisation)
    return Batch(pages, normalised.pixels, normalised.ink, faults)


def _chunks(files: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
    chunk: list[ImageFile] = []
    size_bytes = 0
    for file in files:
        chunk.append(file)
        size_bytes += file.size_bytes
        if len(chunk) >= _CHUNK_FILES or size_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


def _prepared(
    chunks: Iterator[list[ImageFile]],
    workers: int,
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
) -> Iterator[Batch]:
    """Prepare chunks in threads, in order, at most twice as many ahead as there are workers."""
    ahead: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for chunk in chunks:
            ahead.append(pool.submit(prepare, chunk, decoding, normalisation))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _empty() -> Batch:
    none = normalise([])
    return Batch([], none.pixels, none.ink, [])


def _joined(first: Batch, second: Batch) -> Batch:
    return Batch(
        first.pages + second.pages,
        np.concatenate([first.pixels, second.pixels]),
        np.concatenate([first.ink, second.ink]),
        first.faults + second.faults,
    )


def _split(batch: Batch, size: int) -> tuple[Batch, Batch]:
    """Cut off the first `size` pages, and all faults with them."""
    return (
        Batch(batch.pages[:size], batch.pixels[:size], batch.ink[:size], batch.faults),
        Batch(batch.pages[size:], batch.pixels[size:], batch.ink[size:], []),
    )

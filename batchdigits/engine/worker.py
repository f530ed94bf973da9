"""Read, decode and normalise a few files as one stack: what a decoding worker does."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import cv2
import numpy as np

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.engine.children import answering, asking_back
from batchdigits.engine.ink import SharedFinder
from batchdigits.errors import BatchDigitsError, Fault, unforeseen
from batchdigits.preprocessing import thumbnails
from batchdigits.preprocessing.canvas import halved
from batchdigits.preprocessing.finder import InkNetwork
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import INK_MEASURES, SIDE, FullResolution, GreyImage, ImageFile, InkImages, InkMeasures
from batchdigits.settings import DecodingSettings, NormalisationSettings
from batchdigits.storage.reading import read_all

_MALLOC_OPTIONS = {-3: 32 * 2**20, -1: 64 * 2**20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: what glibc comes to at most


def prepare_process() -> None:
    """Prepare a process that decodes: the parent alone takes signals, and its end, whatever it was, is its own too."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        assert parent is not None, "only a child process is prepared"
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def keep_freed_memory() -> None:
    """Let glibc keep what a chunk of pages took for the next one, where it is the C library.

    By default it gives the arrays of each step back to the system, which then clears new pages for the next step: that
    took a sixth of the time of small files.
    """
    with suppress(AttributeError, OSError):  # another C library
        for option, size_bytes in _MALLOC_OPTIONS.items():
            ctypes.CDLL(None).mallopt(option, size_bytes)


def serve(questions: Connection, answers: Connection, replies: Connection, finder: SharedFinder) -> None:
    """Observe what is asked for until nobody asks any more: a worker process."""
    prepare_process()
    network = finder.of_process(asking_back(answers, replies))
    answering(questions, answers, partial(observe, network=network))


class Seen(NamedTuple):
    """A `SeenPage` as it travels between processes, its file by the place in the chunk."""

    at: int
    number: int
    width: int | None
    height: int | None
    sha256: str
    of: int


class Observed(NamedTuple):
    """What a worker found in a chunk."""

    pages: list[Seen]
    pixels: InkImages
    ink: InkMeasures
    faults: list[tuple[Seen, Fault]]
    unchanged: list[int]
    pictures: list[GreyImage]
    decode_seconds: float
    normalise_seconds: float


Asked = tuple[str, int, str, str]
"""Of a file, what a worker has to know: its path, size, ending and known sha256."""


def asked(file: ImageFile) -> Asked:
    """Ask for a file to be observed."""
    return file.path, file.size_bytes, file.ending, file.known_sha256


def observe(
    files: list[Asked],
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
    network: InkNetwork,
    whole: Iterable[bytes | Fault] | None = None,
) -> Observed:
    """Read, decode and normalise a few files as one stack: what a worker does.

    Where that meets an error that nobody foresaw, each is read by itself: so it is one file's fault, and no other's.

    Args:
        files: What `asked` makes of each.
        decoding: Limits of decoding.
        normalisation: What the model was trained behind.
        network: The ink finder.
        whole: The bytes of each, or why it cannot be read, where they have been read.

    Raises:
        StorageError: What a URL names cannot be reached any more.
    """
    try:
        whole = read_all([file[:2] for file in files], decoding.max_bytes) if whole is None else whole
        return _observed(files, decoding, normalisation, network, whole)
    except BatchDigitsError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a codec, OpenCV or we ourselves did not expect)
        if len(files) == 1:
            return _failed(error)
    return _together([observe([file], decoding, normalisation, network) for file in files])


def _failed(error: Exception) -> Observed:
    """Give up on a file; its bytes get no sum, so that the next run tries again."""
    none = np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, len(INK_MEASURES)), np.float32)
    return Observed([], *none, [(Seen(0, 1, None, None, "", of=1), unforeseen(error))], [], [], 0.0, 0.0)


def _together(parts: list[Observed]) -> Observed:
    """Join what was found in files by themselves, in their order."""
    return Observed(
        [seen._replace(at=at) for at, part in enumerate(parts) for seen in part.pages],
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.ink for part in parts]),
        [(seen._replace(at=at), fault) for at, part in enumerate(parts) for seen, fault in part.faults],
        [at for at, part in enumerate(parts) if part.unchanged],
        [picture for part in parts for picture in part.pictures],
        sum(part.decode_seconds for part in parts),
        sum(part.normalise_seconds for part in parts),
    )


def _observed(
    files: list[Asked],
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
    network: InkNetwork,
    whole: Iterable[bytes | Fault],
) -> Observed:
    pages: list[Seen] = []
    greys: list[GreyImage] = []
    finer: list[FullResolution | None] = []
    faults: list[tuple[Seen, Fault]] = []
    unchanged: list[int] = []
    started = time.perf_counter()
    for at, ((_, _, ending, known_sha256), data) in enumerate(zip(files, whole, strict=True)):
        if isinstance(data, Fault):
            faults.append((Seen(at, 1, data.width, data.height, "", of=1), data))
            continue
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 == known_sha256:
            unchanged.append(at)
            continue
        decoded = decode(data, decoding, ending)
        for number, page in enumerate(decoded, 1):
            seen = Seen(at, number, page.width, page.height, sha256, of=len(decoded))
            if isinstance(page, Page):
                pages.append(seen)
                greys.append(page.grey)
                finer.append(page.finer)
            else:
                faults.append((seen, page))
    decoded_at = time.perf_counter()
    smaller = [halved(grey, thumbnails.SIDE) for grey in greys]
    pixels, ink = normalise(greys, network, normalisation, finer=finer)
    pictures = [thumbnails.reduced(page) for page in smaller]
    seconds = decoded_at - started, time.perf_counter() - decoded_at
    return Observed(pages, pixels, ink, faults, unchanged, pictures, *seconds)

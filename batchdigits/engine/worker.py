"""Read, decode, normalise and predict a few files as one stack: what every worker does, here and on a cluster."""

import ctypes
import gc
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.engine.run_context import StageTimer
from batchdigits.errors import OF_THE_MACHINE, BatchDigitsError, Fault, unforeseen
from batchdigits.inference import drift
from batchdigits.inference.audit import in_sample
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import Decisions, decide_calibrated
from batchdigits.preprocessing import thumbnails
from batchdigits.preprocessing.finder import InkMaps, InkNetwork, Kinds
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.preprocessing.tiles import TILE_SIDES, Boxes
from batchdigits.records import (
    NEVER,
    PAGE,
    UNDRAWN,
    Batch,
    ImageFile,
    InkImages,
    KnownBytes,
    Logits,
    Pages,
    Status,
    sums,
)
from batchdigits.settings import DecodingSettings, NormalisationSettings
from batchdigits.storage.reading import read_all

Patience = Callable[[], AbstractContextManager[None]]
"""What is entered while a worker waits for something that is no file's fault."""
Told = Mapping[str, bytes]
"""The sums of files, joined, by the ending under which they were read."""

_MALLOC_OPTIONS = {-3: 32 * 2**20, -1: 64 * 2**20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: what glibc comes to at most
_SLOTS = 2**16  # for sums: 2 MiB in each worker, and what endings take
_BYTES = 32  # of a sum
_PART_SECONDS = 0.4  # after which what was decoded is predicted and told of, while the rest waits


def prepare_process() -> None:
    """Prepare a process that decodes: the parent alone takes signals, and its end, whatever it was, is its own too."""
    if cv2.getNumThreads() > 1:  # not in a fork, in which OpenCV would wait for threads that are not there
        cv2.setNumThreads(1)
    keep_freed_memory()
    gc.freeze()  # else Python looks at all that a fork took along, once a run, and so copies its memory
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


class Networks(Protocol):
    """What a worker asks."""

    def ink(self, looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
        """Find ink, as `InkFinder` does."""

    def digits(self, pixels: InkImages) -> Logits:
        """Predict, as `Predictor` does: float32[N, OUTPUTS]."""


class Known:
    """The sums of bytes that need not be read again, by the ending under which they were."""

    def __init__(self, before: KnownBytes = MappingProxyType({})) -> None:
        """Take what the ledger knew as the run began."""
        self._before = before
        self._sums = np.zeros((_SLOTS, _BYTES), np.uint8)
        self._endings = [""] * _SLOTS

    def has(self, ending: str, sha256: bytes) -> bool:
        """Tell whether bytes are known."""
        before = self._before.get(ending)
        if before is not None:
            at = int(np.searchsorted(before, np.bytes_(sha256)))
            if at < len(before) and before[at] == np.bytes_(sha256):
                return True
        slot = int.from_bytes(sha256[:4], "little") % _SLOTS
        return self._endings[slot] == ending and self._sums[slot].tobytes() == sha256

    def add(self, told: Told) -> None:
        """Add what was told of; of two sums that fall on one slot by how they begin, the later stays."""
        for ending, data in told.items():
            sums = np.frombuffer(data, np.uint8).reshape(-1, _BYTES)
            slots = sums[:, :4].copy().view("<u4")[:, 0] % _SLOTS
            self._sums[slots] = sums
            for slot in slots.tolist():
                self._endings[slot] = ending


def told(batch: Batch, endings: Sequence[str]) -> Told:
    """Sum up what was read of files, so that their bytes are known.

    Args:
        batch: What was read. A file with a fault is left out, since what was unforeseen may have no sum in its row.
        endings: Of its files.
    """
    pages = batch.pages
    whole = (pages["number"] == 1) & ~np.isin(pages["file"], pages["file"][pages["fault"]])
    found: dict[str, bytearray] = defaultdict(bytearray)
    for place, sha256 in zip(pages["file"][whole].tolist(), pages["sha256"][whole].tolist(), strict=True):
        found[endings[place]] += sha256
    return {ending: bytes(sums) for ending, sums in found.items()}


@dataclass(frozen=True, slots=True)
class Drawing:
    """Of which pages pictures are kept, for people."""

    threshold: float
    """Of those that are below this confidence, 0 to 1, or show no digit."""
    audit: float
    """And of this share of files, 0 to 1."""
    is_wanted: bool
    """Whether any are."""
    cut_outs: bool = True
    """Whether those of few pixels are drawn now; else they are noted, and drawn when a report shows them: reading them
    again then costs less than drawing all."""


class Decoded(NamedTuple):
    """A file's pages, or what is wrong with them."""

    sha256: bytes
    """Of its bytes; empty where they could not be read."""
    pages: Sequence[Page | Fault]
    """Empty where the bytes are those that are known of the file."""


class Normalised(NamedTuple):
    """N pages of some files, in order; P of them have no fault."""

    pages: Pages
    """[N], with the place of each one's file, without logits."""
    faults: dict[int, Fault]
    """By the row."""
    unchanged: dict[int, str]
    """The sha256 of files that have no page here, hexadecimal, by their place."""
    pixels: InkImages
    """uint8[P, 28, 28]."""
    places: Boxes
    """float32[P, 4], where the digit is on its page, as `preprocessing.normalise` says it."""
    read: list[Page]
    """[P], in grey."""


class Unpredicted(NamedTuple):
    """A part of what is to be read, all but predicted."""

    places: list[int]
    """Of each file, its place among those that were normalised: one of several with the same bytes."""
    changed: set[int]
    """The places, within the part, of files that changed while they were read."""
    found: Normalised
    """Of the files that were normalised."""


class Reader:
    """What reads files: their bytes in, a record a page out."""

    def __init__(
        self,
        networks: Networks,
        model: Bundle,
        decoding: DecodingSettings,
        drawing: Drawing,
        timer: StageTimer,
        patience: Patience = nullcontext,
        known: Known | None = None,
        sources: Collection[str] = (),
    ) -> None:
        """Hold what it needs.

        Args:
            networks: The ink finder and the digits' networks.
            model: What they are of.
            decoding: Limits.
            drawing: Of which pages pictures are kept.
            timer: Gets the seconds of each stage.
            patience: Entered while servers are read from.
            known: Bytes that are not decoded; by default, none are.
            sources: Under which files were found, as `read_all` has them.
        """
        self._known = known
        self._sources = sources
        self._patience = patience
        self._networks = networks
        self._model = model
        self._decoding = decoding
        self._drawing = drawing
        self._timer = timer

    def parts(self, files: Sequence[ImageFile], *, one_by_one: bool = False) -> Iterator[tuple[int, Batch]]:
        """Read files, a part after the other, so that little is lost where something ends this process.

        Args:
            files: As they were found.
            one_by_one: Make each file a part.

        Yields:
            How many files a part has, and what was read of them; their places are those within the part, and the
            files themselves are left out. Of files with the same bytes one is decoded and predicted.

        Raises:
            BatchDigitsError: What ends the run: a URL cannot be reached any more, or the model is damaged.
        """
        for part in self.unpredicted(files, one_by_one=one_by_one):
            yield len(part.places), self.predicted(part)

    def unpredicted(self, files: Sequence[ImageFile], *, one_by_one: bool = False) -> Iterator[Unpredicted]:
        """Read files as `parts` does, without the digits' networks."""
        changed: set[str] = set()
        part: list[Decoded] = []
        places: list[int] = []  # of each file in the part, which has one of several with the same bytes
        place_of: dict[tuple[str, bytes], int] = {}
        started = time.perf_counter()
        for at, (file, data) in enumerate(zip(files, self._whole(files, changed), strict=True), 1):
            found = decoded(file, data, self._decoding, self._known, place_of)
            place = place_of.setdefault((file.ending, found.sha256), len(part)) if found.sha256 else len(part)
            if place == len(part):
                part.append(found)
            places.append(place)
            seconds = time.perf_counter() - started
            if one_by_one or seconds >= _PART_SECONDS or at == len(files):
                self._timer.add("decode", seconds)
                with self._timer.stage("normalise"):
                    found_ink = normalised(part, self._networks.ink, self._model.normalisation)
                mine = files[at - len(places) : at] if changed else ()
                yield Unpredicted(places, {at for at, file in enumerate(mine) if file.path in changed}, found_ink)
                part, places, place_of, started = [], [], {}, time.perf_counter()

    def _whole(self, files: Sequence[ImageFile], changed: set[str]) -> Iterable[bytes | Fault]:
        whole = _whole(files, self._decoding.max_bytes, self._sources, changed)
        if any(file.is_remote for file in files):
            with self._patience():
                return list(whole)
        return whole

    def predicted(self, part: Unpredicted) -> Batch:
        """Say what was read of the files of a part, as `parts` does."""
        batch = self._finished(part.found)
        if part.places != list(range(len(part.places))):
            batch = batch.of(part.places)
        batch.changed.update(part.changed)
        return batch

    def _finished(self, found: Normalised) -> Batch:
        rows = np.flatnonzero(~found.pages["fault"])
        batch = Batch([], found.pages, found.faults, unchanged=found.unchanged)
        if not len(rows):
            return batch
        try:
            return self._told(found, batch, rows, np.arange(len(rows)))
        except OF_THE_MACHINE:
            raise
        except Exception:  # noqa: BLE001  (whatever the runtime, OpenCV or we ourselves did not expect)
            self._networks.digits(np.zeros_like(found.pixels[:1]))  # fails where no page is at fault; so does this then
        for at, row in enumerate(rows.tolist()):
            try:
                batch = self._told(found, batch, rows[at : at + 1], np.array([at]))
            except OF_THE_MACHINE:
                raise
            except Exception as error:  # noqa: BLE001
                batch.faults[row] = unforeseen(error)
                batch.pages["fault"][row] = True
        return batch

    def _told(self, found: Normalised, batch: Batch, rows: NDArray[np.intp], at: NDArray[np.intp]) -> Batch:
        """Add to a batch what the model says of some rows, which are these among the pages without a fault."""
        pixels = found.pixels[at]
        with self._timer.stage("predict"):
            logits = self._networks.digits(pixels)
        with self._timer.stage("decide"):
            pages = batch.pages[rows]
            decided = decide_calibrated(
                logits, pages["ink"], self._model.calibration, threshold=self._drawing.threshold
            )
            drawn = self._drawn(pages, found, at, decided) if self._drawing.is_wanted else {}
            counts = drift.histogram(decided.confidence)
        batch.pages["logits"][rows] = logits
        batch.thumbnails.update({int(rows[place]): png for place, png in drawn.items()})
        return replace(batch, confidences=tuple((counts + (batch.confidences or 0)).tolist()))

    def _drawn(self, pages: Pages, found: Normalised, at: NDArray[np.intp], decided: Decisions) -> dict[int, bytes]:
        """Draw what people may want to look at, by the row among those that were decided on."""
        wanted = in_sample(sums(pages), self._drawing.audit)
        wanted |= np.array([status is not Status.OK for status in decided.status], np.bool_)
        return {
            row: thumbnails.png(page.grey, found.places[at[row]], page.full_resolution)
            if self._drawing.cut_outs or max(page.grey.shape) > TILE_SIDES[-1]
            else UNDRAWN
            for row in np.flatnonzero(wanted).tolist()
            for page in [found.read[at[row]]]
        }


def _whole(
    files: Sequence[ImageFile], most_bytes: int, sources: Collection[str], changed: set[str]
) -> Iterator[bytes | Fault]:
    """Read whole files, as `read_all` does; an error that nobody foresaw is that file's fault."""
    left = iter(files)
    found = [(file.path, file.size_bytes, file.inode, file.ctime_ns, file.mtime_ns) for file in files]
    try:
        for data in read_all(found, most_bytes, sources, changed):
            next(left)
            yield data
    except BatchDigitsError:
        raise
    except Exception as error:  # noqa: BLE001
        if len(files) == 1:
            yield unforeseen(error)
            return
        for file in left:
            yield from _whole([file], most_bytes, sources, changed)


def decoded(
    file: ImageFile,
    data: bytes | Fault,
    limits: DecodingSettings,
    known: Known | None = None,
    others: Container[tuple[str, bytes]] = (),
) -> Decoded:
    """Decode a file; an error that nobody foresaw is its fault, without its sum, so that the next run tries again.

    Args:
        file: As it was found.
        data: Its bytes, or why they cannot be read.
        limits: Of decoding.
        known: Bytes that are not decoded.
        others: The ending and the sum of others that are not, either.
    """
    if isinstance(data, Fault):
        return Decoded(b"", [data])
    try:
        sha256 = hashlib.sha256(data).digest()
        is_known = known is not None and known.has(file.ending, sha256)
        if is_known or sha256.hex() == file.known_sha256 or (file.ending, sha256) in others:
            return Decoded(sha256, [])
        return Decoded(sha256, decode(data, limits, file.ending))
    except BatchDigitsError:
        raise
    except Exception as error:  # noqa: BLE001
        return Decoded(b"", [unforeseen(error)])


def normalised(files: Sequence[Decoded], network: InkNetwork, settings: NormalisationSettings) -> Normalised:
    """Normalise the pages of files as one stack.

    Where that meets an error that nobody foresaw, each file is normalised by itself: so it is one file's fault, and no
    other's; it has no sum, so that the next run tries again.

    Args:
        files: N files.
        network: The ink finder.
        settings: What the model was trained behind.
    """
    try:
        return _normalised(files, network, settings)
    except BatchDigitsError:
        raise
    except Exception as error:  # noqa: BLE001
        if len(files) == 1:
            return _normalised([Decoded(b"", [unforeseen(error)])], network, settings)
    parts = [normalised([file], network, settings) for file in files]
    joined = Batch.concat(*(Batch([], part.pages, part.faults) for part in parts))
    joined.pages["file"] = np.repeat(np.arange(len(parts)), [len(part.pages) for part in parts])
    return Normalised(
        joined.pages,
        joined.faults,
        {at: part.unchanged[0] for at, part in enumerate(parts) if part.unchanged},
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.places for part in parts]),
        [page for part in parts for page in part.read],
    )


def _normalised(files: Sequence[Decoded], network: InkNetwork, settings: NormalisationSettings) -> Normalised:
    every = [page for file in files for page in file.pages]
    pages = np.zeros(len(every), PAGE)
    counts = [len(file.pages) for file in files]
    sha256 = np.frombuffer(b"".join(file.sha256 or bytes(32) for file in files), "V32")
    pages["file"] = np.repeat(np.arange(len(files)), counts)
    pages["sha256"] = np.repeat(sha256, counts)
    pages["number"] = [number for count in counts for number in range(1, count + 1)]
    pages["width"] = [page.width or 0 for page in every]
    pages["height"] = [page.height or 0 for page in every]
    pages["logits"] = NEVER
    faults = {row: page for row, page in enumerate(every) if isinstance(page, Fault)}
    pages["fault"][list(faults)] = True
    read = [page for page in every if isinstance(page, Page)]
    greys = [page.grey for page in read]
    pixels, ink, places = normalise(greys, network, settings, full_resolution=[page.full_resolution for page in read])
    pages["ink"][~pages["fault"]] = ink
    unchanged = {at: file.sha256.hex() for at, file in enumerate(files) if not file.pages}
    return Normalised(pages, faults, unchanged, pixels, places, read)

"""Decode files in a pool of workers, and give batches of normalised pages in the order of the files.

The only pool of decoding workers and the only queue. Workers take files in chunks: they read, decode and normalise
a chunk as one stack. What waits to be predicted is bounded, so a fast disk does not fill the memory.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import cv2

from batchdigits.engine.children import Child, DiedError, cores
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Asked, Observed, Seen, asked, keep_freed_memory, observe, serve
from batchdigits.errors import BatchDigitsError, DecoderDied, Interrupted, Terminated, escaped
from batchdigits.records import Batch, ImageFile, SeenPage
from batchdigits.settings import MOST_WORKERS, DecodingSettings, NormalisationSettings

log = logging.getLogger(__name__)

_SECONDS_FOR_PROCESSES = 1.0  # of one core's work
_SECONDS_A_FILE, _SECONDS_A_BYTE = 1e-4, 2.5e-8  # about: a small PNG takes 0.1 ms, a JPEG of 38 kB a whole one

_CHUNK_FILES = 256  # one future per small file is slower than no workers
_CHUNK_BYTES = 2 * 2**20  # a chunk of scans stays small enough to be held decoded, a few times over

_BATCH_BYTES = 8 * 2**20  # of files that take their time: what was read of them is predicted and recorded meanwhile
_BATCH_PAGES = 64  # which are as many as that at least, for a prediction costs the same for fewer


def is_work_for_processes(files: int, size_bytes: int) -> bool:
    """Tell whether files are so much work that decoding workers are better processes than threads.

    Threads wait for each other at Python's lock; but processes take some tenths of a second to start, and compete with
    TensorFlow's start for the cores.
    """
    return files * _SECONDS_A_FILE + size_bytes * _SECONDS_A_BYTE >= _SECONDS_FOR_PROCESSES


class Workers:
    """The pool of decoding workers: a context manager."""

    def __init__(self, count: int | None, finder: SharedFinder, *, processes: bool) -> None:
        """Say how many; none is started yet.

        Args:
            count: Workers; None has one for each core that this process may use, and at most `MOST_WORKERS`.
            finder: What they find ink by.
            processes: They are processes and not threads.
        """
        self._finder = finder
        self.count = worker_count(count)
        self._processes = processes
        self._children: list[Child] = []
        self._free: SimpleQueue[Child] = SimpleQueue()

    def __enter__(self) -> Self:
        """Start the pool; processes start at once, since they take a while."""
        cv2.setNumThreads(1)  # the workers are the threads
        keep_freed_memory()
        if self._processes:
            self._start_processes()
        # Two threads ask one process, so that it always has something to do.
        self._pool = ThreadPoolExecutor(2 * len(self._children) or self.count, thread_name_prefix="decode")
        return self

    def _start_processes(self) -> None:
        """Start the processes; none where this machine has no room for all."""
        try:
            for _ in range(self.count):
                self._children.append(Child(serve, self._finder, told=self._finder))
        except OSError as error:
            log.warning("Worker processes cannot be started (%s); threads read the files, more slowly.", error)
            self._end_processes()
        for child in 2 * self._children:
            self._free.put(child)

    def _end_processes(self) -> None:
        for child in self._children:
            child.end()
        self._children.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is in hand, and drop the rest."""
        self._pool.shutdown(cancel_futures=True)
        self._end_processes()

    @property
    def started(self) -> bool:
        """Tell whether a worker process came to life, once one has died."""
        return any(child.has_started for child in self._children)

    def submit(
        self, files: list[ImageFile], decoding: DecodingSettings, normalisation: NormalisationSettings
    ) -> "Future[Observed]":
        """Let a worker observe a chunk."""
        return self._pool.submit(self._observe, [asked(file) for file in files], decoding, normalisation)

    def _observe(
        self, files: list[Asked], decoding: DecodingSettings, normalisation: NormalisationSettings
    ) -> Observed:
        """Observe in this thread, or let a process do it."""
        if not self._children:
            return observe(files, decoding, normalisation, self._finder)
        child = self._free.get()
        try:
            found: Observed = child.ask(files, decoding, normalisation)
            return found
        finally:
            self._free.put(child)


def worker_count(wanted: int | None) -> int:
    """Say how many workers there are; None wants one for each core that this process may use, up to `MOST_WORKERS`."""
    return wanted or min(MOST_WORKERS, cores())


def batches(
    files: Iterable[ImageFile],
    workers: Workers,
    *,
    size: int,
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
    timer: StageTimer | None = None,
    first: Iterable[Batch] = (),
) -> Iterator[Batch]:
    """Read, decode and normalise files.

    Args:
        files: Consumed as they are needed.
        workers: A pool that was entered.
        size: Pages a batch, at most; one of large files, one that is full of faults, and the last one have fewer.
        decoding: Limits of decoding.
        normalisation: What the model was trained behind.
        timer: Gets the seconds of `decode` and `normalise`, of all workers together.
        first: What was observed of other files, elsewhere; it stands in the first batches.

    Yields:
        Batches; every page of every file stands in exactly one of them, once. Where the run has to end meanwhile, one
        more with what the workers have finished.

    Raises:
        Interrupted: The run was asked to end by SIGINT.
        Terminated: The run was asked to end by SIGTERM.
        DecoderDied: A worker process died.
        BatchDigitsError: None could start.
    """
    waiting = Batch.empty()
    size_bytes = 0
    end: BatchDigitsError | None = None
    try:
        for chunk in chain(first, _prepared(chunks(files), workers, decoding, normalisation, timer or StageTimer())):
            waiting = Batch.concat(waiting, chunk)
            size_bytes += sum(page.file.size_bytes for page in chunk.pages if page.number == 1)
            are_large = size_bytes >= _BATCH_BYTES and len(waiting.pages) >= _BATCH_PAGES
            while are_large or max(len(waiting.pages), len(waiting.faults), len(waiting.unchanged)) >= size:
                batch, waiting = waiting.split(size)
                size_bytes, are_large = 0, False
                yield batch
    except BatchDigitsError as error:
        end = error
    if waiting.pages or waiting.faults or waiting.unchanged:
        yield waiting
    if end:
        raise end


def chunks(files: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
    """Cut files into what a worker takes at a time."""
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
    workers: Workers,
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
    timer: StageTimer,
) -> Iterator[Batch]:
    """Prepare chunks, in order, at most twice as many ahead as there are workers."""
    ahead: deque[tuple[list[ImageFile], Future[Observed]]] = deque()

    def next_one() -> Batch:
        files, future = ahead[0]
        batch = assembled(files, future.result(), timer)
        ahead.popleft()
        return batch

    try:
        for chunk in chunks:
            ahead.append((chunk, workers.submit(chunk, decoding, normalisation)))
            if len(ahead) > 2 * workers.count:
                yield next_one()
        while ahead:
            yield next_one()
    except (Interrupted, Terminated):
        with suppress(DiedError):  # the signal came to all processes
            while ahead and ahead[0][1].done():
                yield next_one()
        raise
    except DiedError as error:
        at_stake, _ = ahead[0]
        if not workers.started:
            message = (
                "The worker processes cannot start; in a script, call batchdigits under `if __name__ == '__main__':`."
            )
            raise BatchDigitsError(message) from error
        message = (
            f"A decoding worker died at {escaped(at_stake[0].name)} or one of the {len(at_stake)} files from there on: "
            "memory ran out, or a file crashes its decoder. Run again: with a ledger, the next run reads each of them "
            "by itself and finds which one it is."
        )
        raise DecoderDied(message) from error


def assembled(files: list[ImageFile], found: Observed, timer: StageTimer) -> Batch:
    """Make a batch of what a worker found.

    Args:
        files: The chunk that the worker was given.
        found: In it, each page with the place of its file in the chunk.
        timer: Gets the worker's seconds of `decode` and `normalise`.
    """
    timer.add("decode", found.decode_seconds)
    timer.add("normalise", found.normalise_seconds)

    def page(seen: Seen) -> SeenPage:
        return SeenPage(files[seen.at], *seen[1:])

    faults = [(page(seen), fault) for seen, fault in found.faults]
    unchanged = [files[at] for at in found.unchanged]
    return Batch([page(seen) for seen in found.pages], found.pixels, found.ink, faults, unchanged, found.pictures)

"""Read files on the processors of this machine: an `Engine`. `ray_cluster` is another, on a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import cv2

from batchdigits.engine.children import can_fork
from batchdigits.engine.networks import NetworkProcess, OwnNetworks
from batchdigits.engine.pool import Workers, worker_count
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.engine.serving import Job
from batchdigits.engine.worker import Drawing
from batchdigits.inference.bundle import Bundle
from batchdigits.records import Batch, ImageFile, KnownBytes
from batchdigits.settings import PredictSettings, Runtime


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine needs to know of a run."""

    model: Bundle
    """What reads the digits."""
    settings: PredictSettings
    """Of the run."""
    drawing: Drawing
    """Of which pages pictures are kept."""
    timer: StageTimer
    """Gets the seconds of the stages."""
    stop: Stop
    """Tells of signals."""
    known: KnownBytes
    """Bytes that are not decoded: whose pages are known, under whatever name."""
    is_remote: bool
    """Whether files come from servers or archives."""
    sources: tuple[str, ...] = ()
    """Absolute paths under which files of this machine were found: nothing that lies elsewhere is read."""


Read = Callable[[Iterable[ImageFile]], Iterator[Batch]]
"""Takes files as it needs them, and yields every page of each once; where it has to end, what was read before."""
Engine = Callable[[Reading], AbstractContextManager[Read]]
"""Gives what reads; it is not entered where there is nothing to read."""


@contextmanager
def on_this_machine(reading: Reading) -> Iterator[Read]:
    """Give what reads with a pool of worker processes: an `Engine`.

    Yields:
        `pool.Workers.read`.

    Raises:
        BundleError: LiteRT cannot open the model.
        BatchDigitsError: No process can be started.
    """
    model, settings, timer = reading.model, reading.settings, reading.timer
    cv2.setNumThreads(1)  # which ends OpenCV's threads: a fork would have none of them, and wait for them
    fork = can_fork()
    count = worker_count(settings.workers)
    if reading.is_remote:
        count *= 2  # as one waits for its files, the other has something to do
    with ExitStack() as entered:
        networks: OwnNetworks | NetworkProcess | None = None
        if settings.runtime is Runtime.KERAS:
            networks = entered.enter_context(NetworkProcess(model, settings, fork=fork))
        elif fork and settings.threads == 1:  # threads would not be there in a fork
            with timer.stage("load model"):
                networks = entered.enter_context(OwnNetworks(model, settings))
        job = Job(model, settings, reading.drawing, reading.known, reading.sources)
        are_busy = not reading.is_remote
        workers = Workers(count, job, networks, fork=fork, timer=timer, stop=reading.stop, are_busy=are_busy)
        yield entered.enter_context(workers).read

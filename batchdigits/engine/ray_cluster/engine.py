"""Read the pending files on a cluster of Ray: an `Engine`, as `local.on_this_machine` is.

Ray Data maps shards of the file list over a pool of workers. Each loads the model once, decodes, normalises and
predicts; faults are rows of what it sends. Results stream back to this process, which alone writes the ledger, so that
a shard that was read twice, since its worker was lost, counts once. The workers read files by the names that this
process found: local sources have to lie on storage that all nodes share; URLs do not. The model travels.
"""

import importlib.util
import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.isolation import one_by_one
from batchdigits.engine.local import Drawn, Engine, Task
from batchdigits.engine.pool import Workers, assembled, batches, chunks
from batchdigits.engine.prediction import Predicted, predict_ahead, sparing
from batchdigits.engine.ray_cluster.client import Cluster
from batchdigits.engine.ray_cluster.driver import NOT_INSTALLED, host_and_port
from batchdigits.engine.ray_cluster.worker import Found, Shard
from batchdigits.errors import FaultKind, StorageError, UsageError, escaped
from batchdigits.ledger.plan import Phase
from batchdigits.records import Batch, ImageFile
from batchdigits.storage.reading import read_local

log = logging.getLogger(__name__)

_CHUNKS = 4  # in a shard, which so is as much as a batch: it is recorded in one transaction


def engine(address: str | None) -> Engine:
    """Give what reads on Ray; where nothing is new, Ray does not start.

    Args:
        address: Of a cluster's head node; None for one on this machine.

    Raises:
        UsageError: Ray is not installed, or the address is none.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(NOT_INSTALLED)
    if address is not None:
        host_and_port(address)
    return on_ray


def on_ray(task: Task) -> Generator[Predicted[Drawn], None, None]:
    """Decode and predict on the workers of a cluster: an `Engine`.

    What was in progress when a run died is read here, one by one, and so in the end is what no worker could read.

    Raises:
        UsageError: A worker has other versions.
        StorageError: The cluster cannot be reached, or is lost; or a node does not see the files.
        BatchDigitsError: What else ended it.
    """
    plan, stable = task.plan, task.settling.stable
    yield from _here(task, stable(plan.in_phase(Phase.SUSPECT), plan.defer))
    with ExitStack() as stack:
        cluster: Cluster | None = None
        for files in (
            plan.in_phase(Phase.STABLE, in_progress=False),
            stable(plan.in_phase(Phase.RECENT, in_progress=False), plan.defer),
        ):
            shards = _shards(files)
            with task.stop.readily():
                first = next(shards, None)
            if first:
                cluster = cluster or stack.enter_context(Cluster(task.settings, task.model, task.stop))
                yield from _there(task, cluster, chain([first], shards))


def _shards(files: Iterable[ImageFile]) -> Iterator[Shard]:
    several = chunks(files)
    while shard := list(islice(several, _CHUNKS)):
        yield shard


def _here(task: Task, files: Iterable[ImageFile]) -> Iterator[Predicted[Drawn]]:
    """Read files one by one in a process of their own, and predict in this one, as on this machine."""
    decoding, normalisation = task.settings.decoding, task.model.normalisation
    with (
        SharedFinder(task.model.directory, task.settings.runtime) as finder,
        Workers(1, finder, processes=False) as none,
    ):
        ready = batches(
            [],
            none,
            size=task.settings.batch_size,
            decoding=decoding,
            normalisation=normalisation,
            first=one_by_one(files, decoding=decoding, normalisation=normalisation, finder=finder, timer=task.timer),
        )
        yield from predict_ahead(ready, task.prediction, judge=task.judge, draw=task.draw, stop=task.stop)


def _there(task: Task, cluster: Cluster, shards: Iterable[Shard]) -> Iterator[Predicted[Drawn]]:
    """Have shards read by the cluster; those that do not come back, and files that it cannot open, are read here."""
    left: list[ImageFile] = []
    lost = 0
    for shard, found in cluster.read(shards):
        if found is None:
            left.extend(file for files in shard for file in files)
            lost += 1
        else:
            yield _judged(task, shard, found, left)
    if lost:
        log.info("No worker brought back %d of the shards of files; they are read here, one by one.", lost)
    yield from _here(task, left)


def _judged(task: Task, shard: Shard, found: Found, left: list[ImageFile]) -> Predicted[Drawn]:
    """Make of what a worker found what is recorded.

    Args:
        task: Of the run.
        shard: Files.
        found: In them.
        left: Gets those that the worker could not open: what its node sees is not what this machine does.

    Raises:
        StorageError: It could open none, and this machine can.
    """
    for stage, seconds in found.seconds.items():
        task.timer.add(stage, seconds)
    whole = Batch.concat(
        *(assembled(files, seen, task.timer) for files, seen in zip(shard, found.observed, strict=True))
    )
    closed = [
        page.file
        for page, fault in whole.faults
        if fault.kind is FaultKind.UNREADABLE and not page.sha256 and not fault.trace
    ]
    if len(closed) == sum(map(len, shard)) > 1 and (seen := _readable(closed, task)):
        message = (
            f"The worker on {found.node} cannot open {escaped(seen.path)}, which this machine can: local folders have "
            "to lie on storage that all nodes share; mount it there under the same name, or use --engine local."
        )
        raise StorageError(message)
    left.extend(closed)
    batch, is_new = task.judge(whole.without({file.path for file in closed}))
    if not is_new.any():
        return Predicted(batch, is_new, np.zeros((0, 10), np.float32), None)
    rows = {(page.file.path, page.number): row for row, page in enumerate(whole.pages)}

    def draw(batch: Batch, is_new: NDArray[np.bool_]) -> Predicted[Drawn]:
        asked_for = [(batch.pages[at].file.path, batch.pages[at].number) for at in np.flatnonzero(is_new)]
        logits = found.logits[[rows[page] for page in asked_for]]
        with task.timer.stage("decide"):
            return Predicted(batch, is_new, logits, task.draw(batch, is_new, logits))

    return sparing(batch, is_new, draw)


def _readable(files: list[ImageFile], task: Task) -> ImageFile | None:
    """Give one that is on this machine, and can be read here."""
    for file in files:
        if file.is_remote:
            continue
        if isinstance(read_local(file.path, file.size_bytes, task.settings.decoding.max_bytes), bytes):
            return file
    return None

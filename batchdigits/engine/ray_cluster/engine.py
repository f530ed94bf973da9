"""Read the pending files on a cluster of Ray: an `Engine`, as `local.on_this_machine` is.

Ray Data maps shards of the file list over a pool of workers. Each loads the model once, decodes, normalises and
predicts; faults are rows of what it sends. Results stream back to this process, which alone writes the ledger, so that
a shard that was read twice, since its worker was lost, counts once. The workers read files by the names that this
process found: local sources have to lie on storage that all nodes share; URLs do not. The model travels.
"""

import importlib.util
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, islice

from batchdigits.engine.local import Engine, Read, Reading, on_this_machine
from batchdigits.engine.pool import chunks
from batchdigits.engine.ray_cluster.client import Cluster
from batchdigits.engine.ray_cluster.driver import NOT_INSTALLED, host_and_port
from batchdigits.engine.ray_cluster.worker import Found, Shard
from batchdigits.errors import FaultKind, StorageError, UsageError, escaped
from batchdigits.records import Batch, ImageFile
from batchdigits.storage.reading import read_local

log = logging.getLogger(__name__)

_CHUNKS = 4  # in a shard, which is recorded in one transaction


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


@contextmanager
def on_ray(reading: Reading) -> Iterator[Read]:
    """Give what reads on the workers of a cluster: an `Engine`.

    What no worker brought back, and what it could not open, is read here.

    Yields:
        What raises, beside what `Read` may:
        UsageError: A worker has other versions.
        StorageError: The cluster cannot be reached, or is lost; or a node does not see the files.
    """
    with ExitStack() as entered:
        cluster: Cluster | None = None

        def read(files: Iterable[ImageFile]) -> Iterator[Batch]:
            nonlocal cluster
            shards = _shards(files)
            with reading.stop.readily():
                first = next(shards, None)
            if first:
                cluster = cluster or entered.enter_context(Cluster(reading))
                yield from _there(reading, cluster, chain([first], shards))

        yield read


def _shards(files: Iterable[ImageFile]) -> Iterator[Shard]:
    several = chunks(files)
    while shard := list(islice(several, _CHUNKS)):
        yield shard


def _there(reading: Reading, cluster: Cluster, shards: Iterable[Shard]) -> Iterator[Batch]:
    """Have shards read by the cluster; those that do not come back, and files that it cannot open, are read here."""
    left: list[ImageFile] = []
    lost = 0
    for shard, found in cluster.read(shards):
        if found is None:
            left.extend(file for files in shard for file in files)
            lost += 1
        else:
            yield _checked(reading, shard, found, left)
    if lost:
        log.info("No worker brought back %d of the shards of files; they are read here.", lost)
    if left:
        with on_this_machine(reading) as read:
            yield from read(left)


def _checked(reading: Reading, shard: Shard, found: Found, left: list[ImageFile]) -> Batch:
    """Make a batch of what a worker found.

    Args:
        reading: Of the run.
        shard: Files.
        found: In them.
        left: Gets those that the worker could not open: what its node sees is not what this machine does.

    Raises:
        StorageError: It could open none, and this machine can.
    """
    for stage, seconds in found.seconds.items():
        reading.timer.add(stage, seconds)
    whole = Batch.concat(*(replace(batch, files=files) for files, batch in zip(shard, found.chunks, strict=True)))
    sums = whole.sha256
    places = {
        int(whole.pages["file"][row])
        for row, fault in whole.faults.items()
        if fault.kind is FaultKind.UNREADABLE and not sums[row] and not fault.trace
    }
    closed = [whole.files[at] for at in sorted(places)]
    if len(closed) == sum(map(len, shard)) > 1 and (seen := _readable(closed, reading)):
        message = (
            f"The worker on {found.node} cannot open {escaped(seen.path)}, which this machine can: local folders have "
            "to lie on storage that all nodes share; mount it there under the same name, or use --engine local."
        )
        raise StorageError(message)
    left.extend(closed)
    return whole.of([at for at in range(len(whole.files)) if at not in places])


def _readable(files: list[ImageFile], reading: Reading) -> ImageFile | None:
    """Give one that is on this machine, and can be read here."""
    for file in files:
        if file.is_remote:
            continue
        most_bytes = reading.settings.decoding.max_bytes
        if isinstance(read_local(file.path, file.size_bytes, most_bytes, file.inode, file.ctime_ns), bytes):
            return file
    return None

"""Run Ray in a child process, which gets a `Job` and shards of files over a pipe and sends results back.

This is the process that Ray calls its driver. Its parent is the run, which jobs/README.md calls the driver. A shard
whose worker was lost, with its node or by a file that crashes its decoder, is asked for again.
"""

import logging
import os
import re
import secrets
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from batchdigits.engine.ray_cluster.worker import RayWorker
from batchdigits.engine.worker import prepare_process
from batchdigits.errors import BatchDigitsError, StorageError, UsageError, escaped
from batchdigits.storage.urls import LAST_PORT

NOT_INSTALLED = "The engine ray is not installed; install batchdigits[ray], or use --engine local."

_ROUNDS = 2  # where a worker was killed, Ray may give its shard up before it has started another
_RETRIES = 1  # in a round, of a shard whose worker was lost: with its node, or by a file that crashes its decoder
_SECONDS_TO_CONNECT = 10.0

_THIS_ONES = "auto"  # the cluster that this machine belongs to
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


class Job(NamedTuple):
    """What a driver has to know."""

    address: str | None
    """Of the cluster's head node, as `host_and_port` reads it; None for a cluster on this machine."""
    folder: str
    """For the files of that one; empty at first."""
    processors: int
    """Of that one."""
    most_workers: int | None
    """Processes that read, at most."""
    reader: tuple[dict[str, str], str, bytes, dict[str, bytes]]
    """What makes a `RayWorker`."""


Message = tuple[bytes, bytes | None] | None
"""What a driver says: a shard, pickled, and what was found in it, None where it came back from no worker. None by
itself says that it is ready, and then that all is said. It may also say a `BatchDigitsError`, which ends the run."""


def main(connection: Connection) -> None:
    """Read what is asked for until nobody asks any more.

    Args:
        connection: Gives a `Job`, then shards, all pickled, and nothing after the last; what was found in all is sent
            before others are taken. Gets a `Message` at a time.
    """
    prepare_process()
    job: Job = connection.recv()
    os.chdir(job.folder)  # Ray lets its workers import from where its driver is; and that may be among the scans
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)  # Ray prints, and a report may go to standard output
    try:
        ray = _started(job)
    except BatchDigitsError as error:
        with suppress(_PeerGoneError):
            _say(connection, error)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of a whole group; the parent has it too, and ends this process
    try:
        _say(connection, None)
        while True:
            shards = enumerate(iter(partial(_heard, connection), b""))
            # From here on, names lie in Ray's object store alone, which writes to disk what it has no room for.
            for word in _read(ray, {number: _kept(ray, number, shard) for number, shard in shards}, job):
                _say(connection, word)
            _say(connection, None)
    except _PeerGoneError:
        pass
    except Exception as error:  # noqa: BLE001  Ray raises whatever it is made of
        message = f"Ray ended the run ({_said(error)}); what was finished is kept, the next run goes on from there."
        with suppress(_PeerGoneError):
            _say(connection, StorageError(message))
    ray.shutdown()


class _PeerGoneError(Exception):
    """Nobody asks any more, or listens."""


def _heard(connection: Connection) -> bytes:
    try:
        return connection.recv_bytes()
    except (EOFError, OSError) as error:
        raise _PeerGoneError from error


def _say(connection: Connection, word: Message | BatchDigitsError) -> None:
    try:
        connection.send(word)
    except OSError as error:
        raise _PeerGoneError from error


def host_and_port(address: str) -> tuple[str, int] | None:
    """Read the address of a cluster; None for `auto`, the one that this machine belongs to.

    Raises:
        UsageError: It is none.
    """
    if address == _THIS_ONES:
        return None
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[2]) <= LAST_PORT:
        message = "--ray-address names no head node; expected auto, or host:port such as 10.0.0.1:6379."
        raise UsageError(message)
    return match[1].strip("[]"), int(match[2])


def _started(job: Job) -> Any:  # noqa: ANN401  Ray has no types
    """Start a cluster, or connect to one; return Ray.

    Raises:
        UsageError: It is not installed.
        StorageError: It cannot be reached.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray looks as it is imported
    if job.address is None:
        # Also a cluster for this run alone listens to the network: it works for who knows this secret.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(NOT_INSTALLED) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if job.address is not None:
        _probe(job.address)  # Ray would try for minutes
    try:
        if job.address is None:
            ray.init("local", num_cpus=job.processors, include_dashboard=False, _temp_dir=job.folder, **quiet)
        else:
            ray.init(job.address, **quiet)
    except Exception as error:  # noqa: BLE001  Ray raises whatever it is made of
        raise StorageError(_unreachable(job.address, error)) from error
    return ray


def _probe(address: str) -> None:
    """Look whether anything answers at an address.

    Raises:
        StorageError: Nothing does.
    """
    try:
        if place := host_and_port(address):
            socket.create_connection(place, _SECONDS_TO_CONNECT).close()
    except (OSError, UnicodeError) as error:  # the second of a name that is none
        why = (getattr(error, "strerror", None) or "no answer").lower()
        remedy = "check the name and the port, and that the head node runs"
        message = f"Ray cannot be reached at {escaped(address)}: {why}; {remedy}."
        raise StorageError(message) from error


def _unreachable(address: str | None, error: Exception) -> str:
    if address is None:
        return (
            f"Ray cannot be started on this machine: {_said(error)}; check its memory and disk, or use --engine local."
        )
    if address == _THIS_ONES:
        return (
            f"Ray cannot be reached by --ray-address auto: {_said(error)}; start a node of the cluster on this "
            "machine, or name its head node."
        )
    return (
        f"Ray cannot be reached at {escaped(address)}: {_said(error)}; check that the head node runs, with the same "
        "version of Ray, and RAY_AUTH_TOKEN."
    )


def _kept(ray: Any, number: int, shard: bytes) -> Any:  # noqa: ANN401  Ray has no types
    """Lay a shard into Ray's object store; return what refers to it there."""
    import pyarrow

    return ray.put(pyarrow.table({"number": [number], "shard": [shard]}))


def _read(ray: Any, kept: dict[int, Any], job: Job) -> Iterator[Message]:  # noqa: ANN401  Ray has no types
    """Have shards read: what does not come back is asked for once more, and then given without a finding."""
    for _ in range(_ROUNDS if kept else 0):
        for table in _tables(ray, list(kept.values()), job):
            rows = zip(*(table[name].to_pylist() for name in ("number", "shard", "found")), strict=True)
            for number, shard, found in rows:
                if kept.pop(number, None) is not None:  # else it came twice, from a worker that was lost in between
                    yield shard, found
        if not kept:
            return
    for one in kept.values():
        yield ray.get(one)["shard"][0].as_py(), None


def _tables(ray: Any, kept: list[Any], job: Job) -> Iterator[Any]:  # noqa: ANN401  Ray has no types
    """Map shards over a pool of workers; give what comes back, as tables."""
    data = ray.data
    most = min(job.most_workers or len(kept), len(kept))
    at_first = max(1, min(most, int(ray.cluster_resources().get("CPU", 1))))
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a shard that is lost is no reason to end the others
    context.max_consecutive_actor_init_deaths = 2 * at_first  # nodes may go as workers start
    with warnings.catch_warnings():
        # Ray 2.64 will not take the number of retries any more, and has no other place for it yet.
        warnings.simplefilter("ignore")
        found = data.from_arrow_refs(kept).map_batches(
            RayWorker,
            fn_constructor_args=job.reader,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_first),
            max_task_retries=_RETRIES,
        )
    yield from found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _said(error: Exception) -> str:
    """Say what happened in a line: the last one, which in the traceback of a worker names the reason."""
    return escaped(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2].rstrip('.')}")

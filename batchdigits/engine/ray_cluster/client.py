"""Give shards of files to the workers of a Ray cluster, and what these found back as it comes.

Ray is not let into this process: it takes signals, prints, and ends its process where the cluster is lost.
"""

import logging
import os
import pickle
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from batchdigits.engine import children
from batchdigits.engine.local import Reading
from batchdigits.engine.pool import worker_count
from batchdigits.engine.ray_cluster.driver import Job, Message, main
from batchdigits.engine.ray_cluster.worker import Found, Shard, versions
from batchdigits.errors import BatchDigitsError, Interrupted, StorageError, Terminated
from batchdigits.inference import bundle
from batchdigits.storage.scratch import scratch_folder

log = logging.getLogger(__name__)

_SECONDS_TO_WONDER = 60.0  # without a result
_SECONDS_IN_HAND = 1.0  # after a signal, in which what comes back is still given
_SECONDS_TO_END = 10.0  # that a cluster may take which did all
_SECONDS_TO_DIE = 2.0  # that killed processes may take
_MOST_CHARACTERS = 40  # of the folder in which Ray makes sockets, whose names the system limits


class _LostError(StorageError):
    """The process that asks Ray has ended."""

    def __init__(self) -> None:
        super().__init__(
            "The connection to Ray is lost: its head node ended, or memory is short; what was finished is kept, the "
            "next run goes on from there."
        )


class Cluster:
    """The process that asks Ray: a context manager."""

    def __init__(self, reading: Reading) -> None:
        """Say what for; nothing is started yet.

        Args:
            reading: The run; its signals end the waiting for Ray.
        """
        self._reading = reading
        self._stop = reading.stop
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Start a cluster on this machine, or connect to the one that the settings name.

        Raises:
            UsageError: Ray is not installed.
            StorageError: The cluster cannot be reached.
            BatchDigitsError: The process cannot start.
        """
        with ExitStack() as undo:
            try:
                folder = undo.enter_context(scratch_folder(most_characters=_MOST_CHARACTERS))
                # It gets the job by the pipe: as an argument, so much would keep `start` for ever if it died meanwhile.
                self._ours, self._process = children.start(main)
                undo.callback(self._ours.close)
                undo.callback(_end, self._process)
                with self._stop.readily():
                    self._send(pickle.dumps(self._job(str(folder))))
                self._word()
            except (_LostError, OSError) as error:
                message = (
                    "The process that asks Ray ended as it started: memory or the temporary folder is full, the "
                    "cluster has another version of Ray, or a script calls batchdigits outside of "
                    "`if __name__ == '__main__':`."
                )
                raise BatchDigitsError(message) from error
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it; one that was started here ends."""
        with self._undo:
            self._ours.close()
            if error is None:
                self._process.join(_SECONDS_TO_END)

    def read(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Found | None]]:
        """Have shards read.

        Args:
            shards: Consumed before the first result.

        Yields:
            Each shard once, in any order, and what was found in it; None where it came back from no worker. After a
            signal, what comes at once.

        Raises:
            Interrupted: There was a SIGINT.
            Terminated: There was a SIGTERM.
            StorageError: The cluster is lost.
            BatchDigitsError: What a worker says that ends the run.
        """
        with self._stop.readily():
            for shard in shards:
                self._send(pickle.dumps(shard))
            self._send(b"")
        try:
            while result := _result(self._word()):
                yield result
        except (Interrupted, Terminated):
            yield from self._in_hand()
            raise
        except StorageError:
            with self._stop.readily():  # a signal to all ends Ray, too, and is then what is told
                raise

    def _in_hand(self) -> Iterator[tuple[Shard, Found | None]]:
        """Give what comes at once, until something goes wrong."""
        until = time.monotonic() + _SECONDS_IN_HAND
        with suppress(BatchDigitsError):
            while self._ours.poll(max(0.0, until - time.monotonic())) and (result := _result(_received(self._ours))):
                yield result

    def _send(self, data: bytes) -> None:
        try:
            self._ours.send_bytes(data)
        except OSError as error:  # the process has ended
            if self._ours.poll():
                _received(self._ours)  # raises what it said last
            raise _LostError from error

    def _word(self) -> Message:
        """Wait for what the process says next; only the waiting is left at a signal, and not a word half heard."""
        with self._stop.readily():
            while not self._ours.poll(_SECONDS_TO_WONDER):
                log.info("Ray sends nothing: it may wait for a free processor, or for machines that start.")
        return _received(self._ours)

    def _job(self, folder: str) -> Job:
        settings = self._reading.settings
        return Job(
            address=settings.ray_address,
            folder=folder,
            processors=worker_count(settings.workers),
            most_workers=settings.workers,
            reader=(
                versions(settings.runtime),
                settings.runtime.value,
                pickle.dumps((settings, self._reading.drawing, self._reading.sources)),
                bundle.packed(self._reading.model),
            ),
        )


def _end(process: BaseProcess) -> None:
    """Kill a process, and all that it has started: some of Ray's own would stay for half a minute."""
    started = _descendants(process.pid or 0) if process.is_alive() else []
    process.kill()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.join()
    until = time.monotonic() + _SECONDS_TO_DIE
    while any(map(_lives, started)) and time.monotonic() < until:
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    """List what a process has started, and what that has; nothing where the system has no `/proc`."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(status.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found = children.get(pid, [])
    for one in found:
        found.extend(children.get(one, []))
    return found


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # which a process has none that waits for its parent
    return False


def _received(connection: Connection) -> Message:
    try:
        word: Message | BatchDigitsError = connection.recv()
    except (EOFError, OSError) as error:  # the process has ended
        raise _LostError from error
    if isinstance(word, BatchDigitsError):
        raise word
    return word


def _result(word: Message) -> tuple[Shard, Found | None] | None:
    """Take a word to pieces; None is the last."""
    if word is None:
        return None
    shard, found = word
    there: Found | BatchDigitsError | None = None if found is None else pickle.loads(found)
    if isinstance(there, BatchDigitsError):
        raise there
    return pickle.loads(shard), there

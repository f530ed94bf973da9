"""Read files in worker processes; the death of one costs what it had in hand, and that is read again in the same run.

A worker that dies, whenever and however, ends its pipe, of which it alone has the other end. Another one reads the rest
of the chunk, file by file, and where it dies, too, the file that it was at is read by itself: so it is found, and
becomes a row. What is in a worker's hands is bounded, so that a fast disk does not fill the memory.
"""

import fcntl
import hashlib
import logging
import pickle
import select
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from batchdigits.engine.children import Child, cores
from batchdigits.engine.networks import NetworkProcess, OwnNetworks
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.engine.serving import Job, Part, TakesMore, serve
from batchdigits.engine.worker import Told
from batchdigits.errors import BatchDigitsError, DecoderDied, Fault, FaultKind, Interrupted, Terminated, escaped
from batchdigits.records import PAGE, Batch, ImageFile
from batchdigits.settings import MOST_WORKERS
from batchdigits.storage.reading import read_all

log = logging.getLogger(__name__)

SECONDS = 120.0
"""How long a file's decoder may take; a photo of 100 million pixels takes some two."""
PATIENT_SECONDS = 3600.0
"""How long a worker may wait for what is no file's fault: a model that loads, or a server that sends a large file."""

_CHUNK_FILES = 256  # normalising a stack has a cost of its own; 512 are not quicker, and take 5 MB more in each worker
_CHUNK_BYTES = 2 * 2**20  # a chunk of scans stays small enough to be held decoded, a few times over
_CHUNKS_IN_HAND = 2  # of a worker, so that it never waits for its next one
_CHUNKS_AHEAD = 64  # of one that waits for its networks, and says that it takes more
_ROOM = 2**18  # bytes of a pipe, for a chunk's names and what others have told of
_BATCH_PAGES = 2048  # which are recorded in one transaction
_BATCH_SECONDS = 0.4  # that pages wait for others to be recorded with
_MOST_NEWS = 256  # parts of others that a worker, while it takes its time, hears of afterwards
_MOST_DEATHS = 30  # one after the other, of what may pass, such as want of memory
_STILL_SECONDS = 1.0  # from one look at the workers to the next, at most; else this process was stopped, or busy
_NO_ANSWER = (
    "A worker has waited for an hour: the model does not load, or the server that files come from does not answer. "
    "What was finished is kept, and the next run goes on from there."
)
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Signals by which a process ends for a fault of its own; others, such as SIGKILL, come from outside."""


@dataclass(slots=True)
class _Chunk:
    """What a worker is given to read."""

    files: list[ImageFile]
    """Those that were not told of yet."""
    is_suspect: bool = False
    """A worker died of it: its files are read one by one."""


class _Death(NamedTuple):
    """How a worker ended."""

    what: str
    may_pass: bool


def worker_count(wanted: int | None) -> int:
    """Say how many workers there are; None wants one for each core that this process may use, up to `MOST_WORKERS`."""
    return wanted or min(MOST_WORKERS, cores())


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


class Workers:
    """The pool of workers: a context manager."""

    def __init__(
        self,
        count: int,
        job: Job,
        networks: OwnNetworks | NetworkProcess | None,
        *,
        fork: bool,
        timer: StageTimer,
        stop: Stop,
        are_busy: bool,
    ) -> None:
        """Say what they need; each is started when there is a chunk for it.

        Args:
            count: How many there are, at most.
            job: What they have to know.
            networks: Those that a fork takes along, or the process that has them; None has each worker load its own.
            fork: Fork them off this process.
            timer: Gets their seconds by stage, added up.
            stop: Signals end the waiting for them.
            are_busy: Whether each takes a core, and does not mostly wait for servers.
        """
        self.count = count
        self._job, self._networks, self._fork = job, networks, fork
        self._timer, self._stop = timer, stop
        self._workers: list[_Worker] = []
        self._again: deque[_Chunk] = deque()
        self._deaths = 0  # since a worker told of something
        self._is_loading = are_busy and isinstance(networks, NetworkProcess)
        self._listened = 0.0  # by the monotonic clock

    def __enter__(self) -> Self:
        """Start none yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all, and what they have in hand."""
        for worker in self._workers:
            worker.child.questions.close()  # so that all end at the same time
        for worker in self._workers:
            worker.child.end(kill=bool(worker.in_hand))
        self._workers.clear()

    def read(self, files: Iterable[ImageFile]) -> Iterator[Batch]:
        """Read files.

        Args:
            files: Consumed as they are needed.

        Yields:
            Every page of every file once, in any order of the files. Where the run has to end meanwhile, what the
            workers have told of comes first.

        Raises:
            Interrupted: The run was asked to end by SIGINT.
            Terminated: The run was asked to end by SIGTERM.
            DecoderDied: One worker after the other died.
            BatchDigitsError: None could start; or what a worker met that is no fault of a file.
        """
        todo = chunks(files)
        self._listened = time.monotonic()
        found: list[Batch] = []
        until = seconds = 0.0  # the first pages wait for no others, so that runs that are soon killed get on, too
        end: Exception | None = None
        while end is None:
            try:
                self._hand_out(todo)
                if not any(worker.in_hand for worker in self._workers):
                    break
                for worker in self._heard(until if found else None):
                    found.extend(self._take(worker))
            except (Interrupted, Terminated) as error:
                end = error
                found.extend(self._told())
            except Exception as error:  # noqa: BLE001  (what was read before is recorded first)
                end = error
            now = time.monotonic()
            until = until or now + seconds
            if found and (now >= until or sum(max(len(one), len(one.files)) for one in found) >= _BATCH_PAGES):
                yield Batch.concat(*found)
                found, until, seconds = [], 0.0, _BATCH_SECONDS
            elif not found:
                until = 0.0
        if found:
            yield Batch.concat(*found)
        if end:
            raise end

    def _hand_out(self, todo: Iterator[list[ImageFile]]) -> None:
        """Give each worker what it has room for; start those that there is a chunk for."""
        while len(self._workers) < self._most() or any(map(_Worker.has_room, self._workers)):
            if self._again:
                chunk = self._again.popleft()
            else:
                with self._stop.readily():
                    files = next(todo, None)
                if files is None:
                    return
                chunk = _Chunk(files)
            worker = self._idlest()
            if worker is None:
                self._again.appendleft(chunk)
                return
            worker.give(chunk)

    def _most(self) -> int:
        """Say how many workers there may be now: while TensorFlow loads, which others wait for, it has a core alone."""
        return max(1, self.count - 1) if self._is_loading else self.count

    def _idlest(self) -> "_Worker | None":
        """Give the worker with room that has least in hand; a new one where all have something, if there may be more.

        None where there is no room for a new one, nor in the others' hands.

        Raises:
            BatchDigitsError: There is none, and no room for one.
        """
        with_room = filter(_Worker.has_room, self._workers)
        found = min(with_room, key=lambda worker: len(worker.in_hand), default=None)
        if (found and not found.in_hand) or len(self._workers) >= self._most():
            return found
        networks = self._networks
        own = networks.connection() if isinstance(networks, NetworkProcess) else networks
        try:
            self._workers.append(_Worker(Child(serve, own, self._job, fork=self._fork)))
        except OSError as error:
            if not self._workers:
                message = f"No worker process can be started ({error}); free memory, or raise the limit of processes."
                raise BatchDigitsError(message) from error
            self.count = len(self._workers)
            return found
        finally:
            if isinstance(own, Connection):
                own.close()
        return self._workers[-1]

    def _heard(self, until: float | None) -> list["_Worker"]:
        """Wait a second at most, until workers say something, or have ended, or the time has come; end those that hang.

        Raises:
            BatchDigitsError: One has waited too long for what is no file's fault.
        """
        busy = {worker.child.answers: worker for worker in self._workers}
        ends = [worker.ends for worker in self._workers if worker.in_hand]
        seconds = max(0.0, min(ends if until is None else [*ends, until]) - time.monotonic())
        seconds = min(seconds, _STILL_SECONDS)
        with self._stop.readily():
            ready = wait(list(busy), seconds)
        heard = [busy[answers] for answers in ready if isinstance(answers, Connection)]
        before, self._listened = self._listened, time.monotonic()
        stood_still = self._listened - before - seconds
        for worker in self._workers:
            if stood_still > _STILL_SECONDS:  # as by Ctrl-Z, which stops the workers, too
                worker.ends += stood_still
            if worker not in heard and worker.in_hand and time.monotonic() > worker.ends:
                if worker.is_patient:
                    raise BatchDigitsError(_NO_ANSWER)
                worker.is_hanging = True
                worker.child.process.kill()
                heard.append(worker)
        return heard

    def _told(self) -> Iterator[Batch]:
        """Give what workers have told of already."""
        with suppress(Exception):
            for worker in self._workers:
                while worker.child.answers.poll():
                    part = worker.child.answers.recv()
                    if isinstance(part, Part):
                        yield self._batch(worker, part)
                        worker.done(part.files)

    def _take(self, worker: "_Worker") -> Iterator[Batch]:
        """Take in what a worker says next, or its death.

        Raises:
            BatchDigitsError: It never started, or met what ends the run.
        """
        try:
            said: Part | TakesMore | bool | Exception = worker.child.answers.recv()
        except (OSError, EOFError, pickle.UnpicklingError):
            yield from self._bury(worker)
            return
        worker.has_started = True
        worker.hear(counts=said is not False and not isinstance(said, TakesMore))
        worker.takes_more = said == TakesMore(worker.given)  # else one is still in its pipe, which might not hold two
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Part):
            self._deaths, self._is_loading = 0, False
            yield self._batch(worker, said)
            worker.done(said.files)

    def _batch(self, worker: "_Worker", part: Part) -> Batch:
        for stage, seconds in part.seconds.items():
            self._timer.add(stage, seconds)
        for other in self._workers:
            if other is not worker:
                other.news.append(part.told)
        return replace(part.batch, files=worker.in_hand[0].files[: part.files])

    def _bury(self, worker: "_Worker") -> Iterator[Batch]:
        """See to what a dead worker had in hand: it is read again, or it is one file that it died of, and gets a row.

        Raises:
            BatchDigitsError: It ended by itself before it started, or never did.
            DecoderDied: So many have died that it is no fault of the files.
        """
        self._workers.remove(worker)
        worker.child.end(kill=True)
        is_killed = (worker.child.process.exitcode or 0) < 0
        if not worker.has_started and worker.is_hanging:
            message = (
                f"A worker process said nothing for {SECONDS:.0f} seconds as it began; free some memory, or let fewer "
                "read with --workers, and run again."
            )
            raise BatchDigitsError(message)
        if not worker.has_started and not is_killed:
            message = (
                "The worker processes cannot start; in a script, call batchdigits under `if __name__ == '__main__':`."
            )
            raise BatchDigitsError(message)
        if not worker.in_hand:
            return
        death = _death(worker)
        self._deaths += 1
        chunk = worker.in_hand.popleft()
        log.info("A worker died (%s) at %s or after it; that is read again.", death.what, escaped(chunk.files[0].name))
        self._again.extendleft(reversed(worker.in_hand))
        if (death.may_pass or not worker.has_started) and self._deaths > _MOST_DEATHS:
            message = (
                f"One worker after the other died, the last at {escaped(chunk.files[0].name)} ({death.what}): memory "
                "is short, or somebody ends them; free some memory, or let fewer read with --workers, and run again."
            )
            raise DecoderDied(message)
        if not worker.has_started:  # which is no file's fault
            self._again.appendleft(chunk)
        elif not chunk.is_suspect:
            self._again.appendleft(_Chunk(chunk.files, is_suspect=True))
        elif len(chunk.files) > 1:
            self._again.extendleft([_Chunk(chunk.files[1:], is_suspect=True), _Chunk(chunk.files[:1], is_suspect=True)])
        else:
            yield _fault(chunk.files[0], death, self._job)


class _Worker:
    """A worker process, and what it has in hand."""

    def __init__(self, child: Child) -> None:
        """Take a process that has just been started."""
        self.child = child
        self.in_hand: deque[_Chunk] = deque()
        self.news: deque[Told] = deque(maxlen=_MOST_NEWS)
        """What others have told of since it was given a chunk."""
        self.has_started = self.is_hanging = self.is_patient = self.takes_more = False
        self.given = 0
        """Chunks, of all that it was given."""
        self.ends = 0.0
        """When it has taken too long, by the monotonic clock."""
        self._unsent = b""
        self._room = _capacity(child.questions)
        self.hear(counts=True)

    def has_room(self) -> bool:
        """Tell whether it takes another chunk."""
        return not self._unsent and len(self.in_hand) < (_CHUNKS_AHEAD if self.takes_more else _CHUNKS_IN_HAND)

    def hear(self, *, counts: bool) -> None:
        """Note that it has said something; what it does until the next word may last, unless that counts."""
        self.is_patient = not counts
        self.ends = time.monotonic() + (SECONDS if counts else PATIENT_SECONDS)

    def give(self, chunk: _Chunk) -> None:
        """Give it a chunk; a second one at once where the pipe has room for that, for it may be writing itself."""
        columns = list(zip(*chunk.files, strict=True))  # which pickle in a tenth of the time
        data = pickle.dumps((columns, chunk.is_suspect, list(self.news)))
        self.news.clear()
        self.takes_more = False
        self.given += 1
        if not self.in_hand:
            self.hear(counts=True)
            self._send(data)
        elif len(data) < self._room:
            self._send(data)
        else:
            self._unsent = data
        self.in_hand.append(chunk)

    def done(self, files: int) -> None:
        """Note that the first files in hand were read."""
        chunk = self.in_hand[0]
        del chunk.files[:files]
        if not chunk.files:
            self.in_hand.popleft()
            if self._unsent and len(self.in_hand) == 1:  # it has told of all else, and reads
                self._send(self._unsent)
                self._unsent = b""

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # it is dead, which its other pipe tells
            self.child.questions.send_bytes(data)


def _capacity(pipe: Connection) -> int:
    """Say how many bytes a pipe surely takes at once when it is empty, with the few that `send_bytes` adds."""
    with suppress(AttributeError, OSError):  # another system, or it will not give more
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _ROOM)
    size_bytes = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) if hasattr(fcntl, "F_GETPIPE_SZ") else select.PIPE_BUF
    return size_bytes - 16


def _death(worker: _Worker) -> _Death:
    if worker.is_hanging:
        return _Death(f"takes its decoder longer than {SECONDS:.0f} seconds", may_pass=False)
    code = -(worker.child.process.exitcode or 0)
    if code in _CRASHES:
        return _Death(f"crashes its decoder ({signal.Signals(code).name})", may_pass=False)
    name = signal.Signals(code).name if code > 0 else f"exit code {-code}"
    return _Death(f"its decoder was ended ({name}), perhaps for want of memory", may_pass=True)


def _fault(file: ImageFile, death: _Death, job: Job) -> Batch:
    """Make the row of a file that ended its worker; its bytes are read here, for their sum, and not decoded.

    Where it may pass, the row has no sum, like that of a file that cannot be opened: the next run tries it again.
    """
    found = (file.path, file.size_bytes, file.inode, file.ctime_ns, file.mtime_ns)
    data = b"" if death.may_pass else next(read_all([found], job.settings.decoding.max_bytes, job.sources))
    remedy = "the next run tries again" if death.may_pass else "move it away, or export it anew as PNG"
    fault = Fault(FaultKind.UNREADABLE, f"{death.what}; {remedy}")
    page = np.zeros(1, PAGE)
    page["number"], page["fault"] = 1, True
    if isinstance(data, bytes) and data:
        page["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), "V32")
    return Batch([file], page, {0: fault})
